"""A net for inference, and which runtime computes it."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from kfcn.errors import KfcnError
from kfcn.inference.runtime import store
from kfcn.inference.runtime.on_litert import LiteRTNet
from kfcn.inference.runtime.on_onnxruntime import OnnxRuntimeNet
from kfcn.inference.runtime.program import Program, UnsupportedError
from kfcn.inference.runtime.program_net import ProgramNet
from kfcn.machine import cores, import_tensorflow, is_intel_avx512

if TYPE_CHECKING:
    import keras

AT_ONCE = 4
"""Pictures of a folder that are computed at the same time, each on its share of the cores. Each
takes memory; on more than two cores nothing was measured."""
_WIDE, _WIDE_ON_INTEL = 0.75, 0.45
"""Share of wide convolutions from which on ONNX Runtime is quicker than LiteRT, in general and with
Intel's AVX-512: ResNets have 0.5, VGG16 has all; with EfficientNetV2-B0, of 0.43, they are level
(docs/benchmarks.md)."""


@runtime_checkable
class Net(Protocol):
    """Images of any size to logits or labels.

    Attributes:
        name: of the runtime.
        classes: number of classes C.
        margin: how far around a pixel the net looks, in pixels; None for the whole image.
        at_once: callers that are quickest served at the same time; it takes more.
    """

    name: str
    classes: int
    at_once: int

    @property
    def margin(self) -> int | None: ...

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 `(B, H, W, C)` for images uint8 or float32 `(B, H, W, 3)`, RGB 0..255."""
        ...

    def labels(self, images: np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8 `(B, H, W)`, for images uint8 `(B, H, W, 3)`."""
        ...


class KerasNet:
    """Any net, on TensorFlow; it has the weights that the model has at each call."""

    name, at_once = "tensorflow", 1

    def __init__(self, model: "keras.Model"):
        self.model = model
        self.classes = model.outputs[0].shape[-1]

    @property
    def margin(self) -> int | None:
        """How far around a pixel the net looks; None for the whole image."""
        from kfcn.inference.tiling import margin

        return margin(self.model)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 `(B, H, W, C)` for images uint8 or float32 `(B, H, W, 3)`, RGB 0..255.

        Raises:
            KfcnError: the net cannot compute images of this size.
        """
        import tensorflow as tf

        from kfcn.fused import run_net

        try:
            found = run_net(self.model, images.astype(np.float32))
        except (ValueError, tf.errors.InvalidArgumentError) as error:  # while traced; while run
            height, width = images.shape[1:3]
            raise KfcnError(
                f"the model cannot compute a picture of {height}x{width}, where its maps do not "
                "fit together; resize it to the size that the model was made for, or to multiples "
                "of 32"
            ) from error
        return found.astype(np.float32, copy=False)  # also under mixed precision

    def labels(self, images: np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8 `(B, H, W)`, for images uint8 `(B, H, W, 3)`."""
        return self.logits(images).argmax(-1).astype(np.uint8)


class NetWithCRF:
    """A net on any runtime with a dense CRF on its logits, which TensorFlow computes."""

    margin, at_once = None, 1

    def __init__(self, net: Net, crf: "keras.Layer"):
        import tensorflow as tf

        self.name, self.classes = f"{net.name}, CRF on tensorflow", net.classes
        self._net = net
        signature = [tf.TensorSpec([None, None, None, c]) for c in (net.classes, 3)]
        self._refine = tf.function(
            lambda logits, image: crf([logits, image]), input_signature=signature, autograph=False
        )

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 `(B, H, W, C)` for images uint8 or float32 `(B, H, W, 3)`, RGB 0..255."""
        return self._refine(self._net.logits(images), images.astype(np.float32)).numpy()

    def labels(self, images: np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8 `(B, H, W)`, for images uint8 `(B, H, W, 3)`."""
        return self.logits(images).argmax(-1).astype(np.uint8)


def as_net(net: "Net | keras.Model") -> Net:
    """A net as it is; a Keras model on TensorFlow, with the weights it has at each call."""
    return net if isinstance(net, Net) else KerasNet(net)


def quickest(model: "keras.Model", threads: int | None = None, at_once: int = 1) -> Net:
    """A model, with the weights it has now, on the runtime that is quickest here.

    That is TensorFlow where it has a GPU. On CPUs it is LiteRT, the quickest of four runtimes
    (docs/benchmarks.md) whatever oneDNN does with the processor, and a new size of image costs it a
    tenth of a second, where TensorFlow traces for seconds. Nets of wide convolutions, on VGG16 and,
    with Intel's AVX-512, the ResNets, run on ONNX Runtime where it is installed. What neither can
    compute stays on TensorFlow.

    Args:
        model: RGB images `(B, H, W, 3)`, 0..255, to logits `(B, H, W, C)`.
        threads: on CPUs, but of TensorFlow; all cores of the process when None.
        at_once: callers that share them; fewer where the net computes for one after another.
    """
    import tensorflow as tf

    from kfcn.inference.runtime.from_keras import program_of, without_crf

    if tf.config.list_physical_devices("GPU"):
        return KerasNet(model)
    body, crf = without_crf(model)
    try:
        net = _on_cpu(program_of(body), threads or cores(), at_once)
    except UnsupportedError:
        return KerasNet(model)
    return net if crf is None else NetWithCRF(net, crf)


def _on_cpu(program: Program, threads: int, at_once: int) -> ProgramNet:
    """A program on the runtime that is quickest on CPUs.

    Raises:
        UnsupportedError: a step that LiteRT has no operation for, or neither is installed.
    """
    wide = program.wide_share()
    if wide > _WIDE or (wide > _WIDE_ON_INTEL and is_intel_avx512()):
        with contextlib.suppress(UnsupportedError):
            return OnnxRuntimeNet(program, threads, at_once)
    return LiteRTNet(program, threads, at_once)


def open_net(
    model: "keras.Model | Path | str",
    crf: bool = False,
    threads: int | None = None,
    at_once: int = 1,
) -> tuple[Net, dict[str, Any] | None]:
    """The net that a caller named or passed, on the quickest runtime, and its card.

    A pretrained net needs neither TensorFlow nor Keras, which take seconds to import, and no more
    does a model file that was opened before: its outline is kept in the user's cache (`store`).

    Args:
        model: a net, its file, or a run folder.
        crf: put a dense CRF on top, as in `kfcn.cards.open_model`.
        threads: on CPUs, but of TensorFlow; all cores of the process when None.
        at_once: callers that share them, as in `quickest`.

    Returns:
        The net, and its card; None where there is none.
    """
    from kfcn.cards import check_card, open_model, read_card
    from kfcn.saved import check_scores

    named = isinstance(model, (str, Path))
    if named and not crf and not _may_have_gpu():
        program = store.load(model)
        if program is not None:
            with contextlib.suppress(UnsupportedError):
                net = _on_cpu(program, threads or cores(), at_once)
                card = read_card(model)
                check_card(card, net.classes, model)
                check_scores(net.classes, model)
                return net, card
    import_tensorflow()
    loaded, card = open_model(model, crf)
    net = quickest(loaded, threads, at_once)
    if named and isinstance(net, ProgramNet):
        store.save(model, loaded)
    return net, card


def _may_have_gpu() -> bool:
    """Whether TensorFlow, which is not asked, might have a GPU."""
    return sys.platform == "darwin" or any(
        any(Path("/dev").glob(pattern)) for pattern in ("nvidia[0-9]*", "kfd", "dxg")
    )
