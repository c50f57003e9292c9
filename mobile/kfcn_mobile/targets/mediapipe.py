"""MediaPipe's ImageSegmenter on this machine, on a bundle's files of scores.

It is what most apps on Android, iOS and the web use. Files of label maps are nothing to it: it
reads them without an error and shows nonsense.
"""

import os
import platform
import time
from importlib import metadata

import numpy as np

from kfcn_mobile.bundle import LOGITS_STEP, Bundle, BundleError
from kfcn_mobile.targets import Outcome, Target, TargetError, Timing, summary

WANTED = "pip install 'kfcn[mediapipe]'"


class MediaPipe(Target):
    """ImageSegmenter: category masks are the labels, confidence masks are checked as well."""

    name = "mediapipe"
    kernels = "MediaPipe's XNNPACK"

    def start(self) -> None:
        # Its C++ part reports every step on standard error.
        os.environ.setdefault("GLOG_minloglevel", "2")
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise TargetError(f"mediapipe: cannot be imported ({error}); {WANTED}") from None
        self._image = lambda pixels: mediapipe.Image(
            image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(pixels)
        )
        self._options = lambda path: vision.ImageSegmenterOptions(
            base_options=BaseOptions(model_asset_path=str(path)),
            output_category_mask=True,
            output_confidence_masks=True,
        )
        self._open = vision.ImageSegmenter.create_from_options
        version = metadata.version("mediapipe")
        self.machine = f"{platform.system()} {platform.machine()}, MediaPipe {version}"

    def file(self, bundle: Bundle, model: dict) -> dict | None:
        """The scores of the same mode."""
        found = [scores for scores in bundle.scores if scores["mode"] == model["mode"]]
        return found[0] if found else None

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        path = bundle.path.resolve() / model["file"]
        try:
            segmenter = self._open(self._options(path))
        except (ValueError, RuntimeError) as error:
            first = (str(error).splitlines() or ["no reason given"])[0]
            raise BundleError(f"{path}: MediaPipe cannot load it ({first})") from None
        with segmenter:
            if tuple(segmenter.labels) != bundle.classes:
                raise BundleError(
                    f"{path}: MediaPipe reads the classes {segmenter.labels}, expected"
                    f" {list(bundle.classes)}"
                )
            labels, confidences = [], []
            for golden in bundle.golden:
                result = segmenter.segment(self._image(golden.image))
                masks = [mask.numpy_view().squeeze() for mask in result.confidence_masks]
                at_some = [mask[::LOGITS_STEP, ::LOGITS_STEP] for mask in masks]
                confidences.append(np.stack(at_some, axis=-1))
                # A copy: the view ends with the result.
                labels.append(result.category_mask.numpy_view().squeeze().copy())
            latency = []
            if timing.runs:
                image, times = self._image(bundle.golden[0].image), []
                for _ in range(timing.warmup + timing.runs):
                    start = time.perf_counter()
                    segmenter.segment(image)
                    times.append(1e3 * (time.perf_counter() - start))
                # It does not say how many threads it uses; on a desktop it is one.
                latency = [summary(times[timing.warmup :], 1)]
        return Outcome(labels, latency, self.kernels, confidences)
