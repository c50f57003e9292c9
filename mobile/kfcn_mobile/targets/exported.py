"""ONNX Runtime and OpenVINO on this machine, on what `kfcn-export` wrote from the bundle's net."""

import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

from kfcn_mobile.bundle import LOGITS_STEP, Bundle, BundleError, check_file, first_line, read_json
from kfcn_mobile.console import Say
from kfcn_mobile.errors import TargetError
from kfcn_mobile.runner import summary
from kfcn_mobile.targets import Outcome, Target, Timing
from kfcn_mobile.targets.apart import Apart

DESCRIPTION = "export.json"

Runner = Callable[..., np.ndarray]
"""(images uint8 (N, H, W, 3), output: str) -> uint8 labels (N, H, W), or float32 scores
(N, H, W, C), whichever the file has under that name."""


def open_onnxruntime(path: Path, threads: int = 0) -> Runner:
    """Opens an `.onnx` file in ONNX Runtime on the CPU; 0 threads: as many as it likes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images, output: session.run([output], {"image": images})[0]


def open_openvino(path: Path, threads: int = 0) -> Runner:
    """Opens an `.xml` file in OpenVINO on the CPU; 0 threads: as many as it likes."""
    import openvino

    # Processors with a matrix unit would otherwise round to 16 bits on the way.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    compiled = openvino.Core().compile_model(path, "CPU", options)
    return lambda images, output: np.array(compiled(images)[output])


# By package, which is the target's name too: what people call it, the format, who opens it.
RUNTIMES = {
    "onnxruntime": ("ONNX Runtime", "onnx", open_onnxruntime),
    "openvino": ("OpenVINO", "openvino", open_openvino),
}


def make_onnxruntime(argument: str, say: Say) -> list[Target]:
    """The target of ONNX Runtime, for the folder that is the argument."""
    return [Exported("onnxruntime", Path(argument))]


def make_openvino(argument: str, say: Say) -> list[Target]:
    """The target of OpenVINO, for the folder that is the argument."""
    return [Exported("openvino", Path(argument))]


class Exported(Apart):
    """The runtime of a folder that `kfcn-export` wrote.

    Args:
        name: of `RUNTIMES`.
        folder: what `kfcn-export` wrote.
    """

    def __init__(self, name: str, folder: Path):
        self.name = f"{name}:{folder.resolve().name}"
        self._package, self._folder = name, folder
        self._title, self._format, _ = RUNTIMES[name]

    def start(self) -> None:
        self._info = read_json(self._folder / DESCRIPTION, "a folder that kfcn-export wrote")
        try:
            version = metadata.version(self._package)
        except metadata.PackageNotFoundError:
            raise TargetError(
                f"{self._package}: is not installed; pip install 'kfcn[{self._format}]'"
            ) from None
        self.machine = f"{platform.system()} {platform.machine()}, {self._title} {version}"
        super().start()

    def file(self, bundle: Bundle, model: dict) -> dict | None:
        """The exported file of the same mode.

        Raises:
            BundleError: the folder's net is not the bundle's, or a file has changed.
        """
        info, description = self._info, self._folder / DESCRIPTION
        if info.get("format") != self._format:
            raise BundleError(
                f"{description}: format {info.get('format')!r}; {self._title} reads {self._format}"
            )
        ours, theirs = (of.get("source") for of in (bundle.info, info))
        if not isinstance(ours, dict) or not isinstance(theirs, dict):
            raise BundleError(
                f"{description}: does not say which net it and the bundle were made from"
            )
        if ours.get("sha256") != theirs.get("sha256"):
            raise BundleError(
                f"{description}: exported from another net ({theirs.get('name')}) than the bundle"
                f" ({ours.get('name')})"
            )
        try:
            found = [one["file"] for one in info["models"] if one["mode"] == model["mode"]]
            if not found:
                return None
            main = check_file(self._folder, found[0], info["files"][found[0]])
            # OpenVINO's are two files with one name but for their ends.
            stem = Path(found[0]).with_suffix("")
            names = [name for name in info["files"] if Path(name).with_suffix("") == stem]
            paths = [check_file(self._folder, name, info["files"][name]) for name in names]
        except (KeyError, TypeError, AttributeError):
            raise BundleError(f"{description}: is not as kfcn-export writes it") from None
        return {**model, "file": str(main), "bytes": sum(path.stat().st_size for path in paths)}

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        images = [golden.image for golden in bundle.golden]
        output, path = self._info.get("output", "labels"), Path(model["file"])
        results, latency = self._there(
            path, self._title, _run, self._package, path, output, images, timing
        )
        kernels = f"{self._title}'s"
        if output != "scores":
            return Outcome(results, latency, kernels)
        labels = [scores.argmax(-1).astype(np.uint8) for scores in results]
        some = [scores[::LOGITS_STEP, ::LOGITS_STEP] for scores in results]
        return Outcome(labels, latency, kernels, some)


def _run(
    name: str, path: Path, output: str, images: list[np.ndarray], timing: Timing
) -> tuple[list[np.ndarray], list[dict]]:
    """What a file gives for each image, and its times by number of threads."""
    _, _, opener = RUNTIMES[name]
    try:
        run = opener(path, timing.threads[0])
        results = [run(image[None], output=output)[0] for image in images]
        latency = []
        for threads in timing.threads if timing.runs else ():
            run, times = opener(path, threads), []
            for i in range(-timing.warmup, timing.runs):
                start = time.perf_counter()
                run(images[0][None], output=output)
                if i >= 0:
                    times.append(1e3 * (time.perf_counter() - start))
            latency.append(summary(times, threads))
    except Exception as error:  # the runtimes' own, of which some cannot be sent to another process
        title = RUNTIMES[name][0]
        raise BundleError(f"{path}: {title} cannot run it ({first_line(error)})") from None
    return results, latency
