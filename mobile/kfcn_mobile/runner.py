"""Runs one `.tflite` file with LiteRT on the host's CPU (XNNPACK), in a process of its own.

`python -m kfcn_mobile.runner FILE --threads N` measures a file and prints one line of JSON: latency
and memory are not those of what ran before. With `--images IN.npy` and `--labels OUT.npy` it labels
images. A file that makes LiteRT crash ends that process and not the one that asked. This module is
the only place of `kfcn_mobile` that opens LiteRT's interpreter, and with `bundle`, `description`
and `gates` all that another processor needs.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kfcn_mobile.bundle import SIGNATURE, BundleError, first_line, save_array

# Exit codes, with the reason in one line: a file that cannot be run, a result that cannot be
# written. Any other is a crash.
REFUSED, UNWRITTEN = 2, 3


class Segmenter:
    """A loaded `.tflite` file with the signature `segment`: image in, label map out.

    Args:
        path: the file.
        size: (H, W) that the file must take.
        threads: of the CPU kernels.
        xnnpack: False runs LiteRT's built-in kernels instead.

    Attributes:
        kernels: "XNNPACK" or "built-in", whichever runs.

    Raises:
        BundleError: not a TFLite file, or not one with this signature and size.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int] | None = None,
        threads: int = 1,
        xnnpack: bool = True,
    ):
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self.path = Path(path)
        try:
            self._interpreter = Interpreter(
                model_path=str(path),
                num_threads=threads,
                experimental_op_resolver_type=OpResolverType.AUTO
                if xnnpack
                else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._interpreter.allocate_tensors()
            signatures = self._interpreter.get_signature_list()
        except (ValueError, RuntimeError, OSError) as error:
            raise BundleError(f"{path}: LiteRT cannot load it ({first_line(error)})") from None
        outputs = signatures.get(SIGNATURE, {}).get("outputs", [])
        if "labels" not in outputs:
            raise BundleError(f"{path}: no signature '{SIGNATURE}' with an output 'labels'")
        runner = self._interpreter.get_signature_runner(SIGNATURE)
        (self._input,) = runner.get_input_details().values()
        self._output = runner.get_output_details()["labels"]
        shape = tuple(int(n) for n in self._input["shape"])
        if size is not None and shape != (1, *size, 3):
            raise BundleError(f"{path}: takes {shape}, expected {(1, *size, 3)}")
        for tensor, name in ((self._input, "image"), (self._output, "labels")):
            if tensor["dtype"] != np.uint8:
                raise BundleError(f"{path}: {name} is {tensor['dtype'].__name__}, expected uint8")
        self.size = shape[1:3]
        # A build of LiteRT may lack XNNPACK and does not say so.
        operators = {op["op_name"] for op in self._interpreter._get_ops_details()}
        self.kernels = "XNNPACK" if "DELEGATE" in operators else "built-in"

    def run(self, image: np.ndarray) -> np.ndarray:
        """Labels one image: uint8 (H, W, 3) RGB in, uint8 (H, W) out.

        Raises:
            BundleError: LiteRT fails.
        """
        self._interpreter.set_tensor(self._input["index"], image[None])
        self._invoke()
        return self._interpreter.get_tensor(self._output["index"])[0]

    def time_once(self) -> float:
        """Seconds that one run takes, with the image that was set last.

        Raises:
            BundleError: LiteRT fails.
        """
        start = time.perf_counter()
        self._invoke()
        return time.perf_counter() - start

    def _invoke(self):
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"{self.path}: LiteRT cannot run it ({first_line(error)})") from None


def time_runs(segmenter: Segmenter, runs: int, warmup: int) -> list[float]:
    """Milliseconds of each of `runs` runs, after `warmup` others."""
    rng = np.random.default_rng(0)
    segmenter.run(rng.integers(0, 256, (*segmenter.size, 3), np.uint8))
    for _ in range(warmup):
        segmenter.time_once()
    return [1e3 * segmenter.time_once() for _ in range(runs)]


def summary(times_ms: Sequence[float], threads: int) -> dict[str, float | int]:
    """Median, 90th percentile and minimum of times in milliseconds."""
    return {
        "median_ms": float(np.median(times_ms)),
        "p90_ms": float(np.percentile(times_ms, 90)),
        "min_ms": float(np.min(times_ms)),
        "runs": len(times_ms),
        "threads": threads,
    }


def label_images(path: str, images: str, labels: str, xnnpack: bool = True) -> dict:
    """Labels uint8 (N, H, W, 3) of one `.npy` file into uint8 (N, H, W) of another.

    Returns:
        `images_ms`: milliseconds of each run; `kernels`, `machine` and `numpy`: on what.

    Raises:
        BundleError: the file does not run.
    """
    pictures = np.load(images, allow_pickle=False)
    segmenter = Segmenter(path, pictures.shape[1:3], xnnpack=xnnpack)
    maps, times = [], []
    for picture in pictures:
        start = time.perf_counter()
        maps.append(segmenter.run(picture))
        times.append(1e3 * (time.perf_counter() - start))
    save_array(Path(labels), np.stack(maps))
    return {
        "images_ms": times,
        "kernels": segmenter.kernels,
        "machine": platform.machine(),
        "numpy": np.__version__,
    }


def resident_peak() -> int | None:
    """Peak resident memory of this process in bytes; None where the system does not say."""
    try:
        # Not `ru_maxrss`: on Linux a child process starts with its parent's.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_apart(
    path: str | Path,
    arguments: Sequence[str],
    python: Sequence[str] = (sys.executable,),
    environment: dict[str, str] | None = None,
    where: str = "",
) -> dict:
    """Runs this module on a file in another process.

    Args:
        path: the `.tflite` file.
        arguments: of the module, after the file.
        python: the command that starts Python.
        environment: variables beside this process's own.
        where: the target, for messages.

    Returns:
        What the process printed as JSON.

    Raises:
        BundleError: the file does not load, does not run, or makes LiteRT crash.
        OSError: the process could not write what it was to write.
    """
    command = [*python, "-m", __name__, str(path), *arguments]
    # Not from the folder that one is in, which may be a bundle that somebody sent: a `numpy.py` in
    # it would be run.
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    variables |= {"PYTHONSAFEPATH": "1", **(environment or {})}
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=variables,
        check=False,
    )
    on = f" on {where}" if where else ""
    if done.returncode == REFUSED:
        raise BundleError(done.stderr.strip().splitlines()[-1] + on)
    if done.returncode == UNWRITTEN:
        raise OSError(done.stderr.strip().splitlines()[-1] + on)
    if done.returncode:
        raise BundleError(f"{path}: LiteRT crashed{on} ({_ending(done)})")
    return json.loads(done.stdout.splitlines()[-1])


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    """How a process ended that said nothing in our words."""
    if done.returncode < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-done.returncode).name
    if done.stderr.strip():
        return done.stderr.strip().splitlines()[-1]
    return f"exit code {done.returncode}"


def measure(path: str | Path, threads: int, runs: int, warmup: int, xnnpack: bool = True) -> dict:
    """Latency and memory of a file, measured in a fresh process.

    Returns:
        `median_ms`, `p90_ms`, `min_ms`, `runs`, `threads`, and where the system tells them
        `peak_bytes` (the process with the model in it) and `model_bytes` (how much higher that is
        than before the model was loaded).

    Raises:
        BundleError: the file does not load or run.
    """
    arguments = {"--threads": threads, "--runs": runs, "--warmup": warmup}
    texts = [str(part) for pair in arguments.items() for part in pair]
    return run_apart(path, texts + ["--built-in"] * (not xnnpack))


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--built-in", action="store_true", help="without XNNPACK")
    parser.add_argument("--images", metavar="IN.npy")
    parser.add_argument("--labels", metavar="OUT.npy")
    args = parser.parse_args()
    xnnpack = not args.built_in
    try:
        if args.images:
            figures = label_images(args.file, args.images, args.labels, xnnpack)
        else:
            figures = _measure_here(args.file, args.threads, args.runs, args.warmup, xnnpack)
    except BundleError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return UNWRITTEN
    print(json.dumps(figures))
    return 0


def _measure_here(path: str, threads: int, runs: int, warmup: int, xnnpack: bool) -> dict:
    import ai_edge_litert.interpreter  # noqa: F401 - its memory is not the model's

    before = resident_peak()
    segmenter = Segmenter(path, threads=threads, xnnpack=xnnpack)
    figures = summary(time_runs(segmenter, runs, warmup), threads)
    peak = resident_peak()
    if before is not None and peak is not None:
        figures |= {"peak_bytes": peak, "model_bytes": peak - before}
    return figures


if __name__ == "__main__":
    sys.exit(_main())
