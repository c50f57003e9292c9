"""MediaPipe's ImageSegmenter on this machine, on a bundle's files of scores.

It is what most apps on Android, iOS and the web use. Files of label maps are nothing to it: it
reads them without an error and shows nonsense.
"""

import os
import platform
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from kfcn_mobile.bundle import LOGITS_STEP, Bundle, BundleError, first_line
from kfcn_mobile.console import Say
from kfcn_mobile.errors import TargetError
from kfcn_mobile.runner import summary
from kfcn_mobile.targets import Outcome, Target, Timing
from kfcn_mobile.targets.apart import Apart

WANTED = "pip install 'kfcn[mediapipe]'"


def make(argument: str, say: Say) -> list[Target]:
    """The target of MediaPipe on this machine."""
    return [MediaPipe()]


class MediaPipe(Apart):
    """ImageSegmenter: category masks are the labels, confidence masks are checked as well."""

    name = "mediapipe"
    kernels = "MediaPipe's XNNPACK"

    def start(self) -> None:
        super().start()
        try:
            version = self._there(self.name, "MediaPipe", _version)
        except ImportError as error:
            raise TargetError(f"mediapipe: cannot be imported ({error}); {WANTED}") from None
        self.machine = f"{platform.system()} {platform.machine()}, MediaPipe {version}"

    def file(self, bundle: Bundle, model: dict) -> dict | None:
        """The scores of the same mode."""
        found = [scores for scores in bundle.scores if scores["mode"] == model["mode"]]
        return found[0] if found else None

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        path = bundle.path.resolve() / model["file"]
        images = [golden.image for golden in bundle.golden]
        labels, confidences, times = self._there(
            path, "MediaPipe", _segment, path, bundle.classes, images, timing
        )
        # It does not say how many threads it uses; on a desktop it is one.
        latency = [summary(times, 1)] if times else []
        return Outcome(labels, latency, self.kernels, confidences)


def _version() -> str:
    # Its C++ part reports every step on standard error.
    os.environ.setdefault("GLOG_minloglevel", "2")
    import mediapipe  # noqa: F401 - an installation can be broken

    return metadata.version("mediapipe")


def _segment(
    path: Path, classes: tuple[str, ...], images: list[np.ndarray], timing: Timing
) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """Label maps, confidences at every `LOGITS_STEP`th row and column, times in milliseconds."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageSegmenterOptions(
        base_options=BaseOptions(model_asset_path=str(path)),
        output_category_mask=True,
        output_confidence_masks=True,
    )

    def picture(pixels):
        return mediapipe.Image(
            image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(pixels)
        )

    labels, confidences, times = [], [], []
    try:
        with vision.ImageSegmenter.create_from_options(options) as segmenter:
            # The file has a class on each line, without what is white around and within.
            if list(segmenter.labels) != [" ".join(name.split()) for name in classes]:
                raise BundleError(
                    f"{path}: MediaPipe reads the classes {segmenter.labels}, expected"
                    f" {list(classes)}"
                )
            for image in images:
                result = segmenter.segment(picture(image))
                masks = [mask.numpy_view().squeeze() for mask in result.confidence_masks]
                at_some = [mask[::LOGITS_STEP, ::LOGITS_STEP] for mask in masks]
                confidences.append(np.stack(at_some, axis=-1))
                # A copy: the view ends with the result.
                labels.append(result.category_mask.numpy_view().squeeze().copy())
            image = picture(images[0])
            for i in range(-timing.warmup if timing.runs else 0, timing.runs):
                start = time.perf_counter()
                segmenter.segment(image)
                if i >= 0:
                    times.append(1e3 * (time.perf_counter() - start))
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"{path}: MediaPipe cannot run it ({first_line(error)})") from None
    return labels, confidences, times
