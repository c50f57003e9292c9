"""Runs every `.tflite` file of a bundle on its golden images and gates the result."""

import argparse
import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kfcn_mobile.agreement import (
    add_counts,
    confidence_error,
    confusion,
    count_agreement,
    mean_iou,
    share,
)
from kfcn_mobile.bundle import Bundle, BundleError, read_bundle
from kfcn_mobile.console import Parser, closing_on_sigterm, number, print_any_letters
from kfcn_mobile.errors import TargetError
from kfcn_mobile.gates import MODES, explain, failures, limits_for
from kfcn_mobile.outputs import OutputError, Outputs, WriteError, which_and_why
from kfcn_mobile.report.table import table
from kfcn_mobile.targets import KINDS, Outcome, Target, Timing, make_targets, spelled
from kfcn_mobile.targets.host import Host, cores


def validate_model(bundle: Bundle, model: dict, label_maps: Sequence[np.ndarray]) -> dict:
    """Compares one file's label maps with the Keras model's.

    Args:
        bundle: the bundle.
        model: its entry in `bundle.models`, or what a target has in its place: with the path of a
            file elsewhere, and `bytes` where it is more than one.
        label_maps: uint8 (H, W), one for each golden image.

    Returns:
        A dict that JSON can hold. Shares are 0..1, None where there is no pixel to count.

    Raises:
        BundleError: a label map has another size or type.
    """
    for labels, golden in zip(label_maps, bundle.golden, strict=True):
        if labels.shape != golden.labels.shape or labels.dtype != np.uint8:
            raise BundleError(
                f"{model['file']}: gives {labels.dtype} {labels.shape} for {golden.name}; expected "
                f"uint8 {golden.labels.shape}"
            )
    num_classes = len(bundle.classes)
    counts = [
        count_agreement(labels, golden.labels, golden.margin, num_classes)
        for labels, golden in zip(label_maps, bundle.golden, strict=True)
    ]
    total = add_counts(counts)
    images = [
        {
            "name": golden.name,
            "agreement": share(count["all"]),
            "confident": share(count["confident"]),
            "differing": int(count["all"][1] - count["all"][0]),
        }
        for golden, count in zip(bundle.golden, counts, strict=True)
    ]
    digest = hashlib.sha256()
    for labels in label_maps:
        digest.update(labels.tobytes())
    return {
        "mode": model["mode"],
        "file": model["file"],
        "bytes": model.get("bytes") or (bundle.path / model["file"]).stat().st_size,
        "agreement": share(total["all"]),
        "boundary": share(total["boundary"]),
        "interior": share(total["interior"]),
        "confident": share(total["confident"]),
        "classes": {
            name: share(pair) for name, pair in zip(bundle.classes, total["classes"], strict=True)
        },
        "worst_image": min(images, key=lambda image: image["agreement"]),
        "images": images,
        "mean_iou": _mean_iou(bundle, label_maps),
        "mean_iou_keras": _mean_iou(bundle, [golden.labels for golden in bundle.golden]),
        "labels_sha256": digest.hexdigest(),
    }


def _mean_iou(bundle: Bundle, label_maps) -> float | None:
    pairs = [
        (golden.truth, labels)
        for golden, labels in zip(bundle.golden, label_maps, strict=True)
        if golden.truth is not None
    ]
    if not pairs:
        return None
    num_classes = len(bundle.classes)
    return mean_iou(np.sum([confusion(t, labels, num_classes) for t, labels in pairs], axis=0))


def validate(
    bundle: Bundle,
    targets: Sequence[Target] | None = None,
    modes: Sequence[str] | None = None,
    threads: int | None = None,
    runs: int = 30,
    warmup: int = 5,
    limits: dict[str, float | None] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict, dict[tuple[str, str], list[np.ndarray]]]:
    """Runs the files of a bundle on every target and compares, times and gates them.

    Args:
        bundle: the bundle.
        targets: where to run; the host when None. Label maps of the others are compared with the
            first one's too, and those of one int8 file on the same kernels must be the same to the
            last pixel.
        modes: those to run; all when None.
        threads: the second number of threads to time with; this process's cores when None.
        runs: timed runs for each file and number of threads; 0 skips the timing.
        warmup: runs before those.
        limits: `agreement`, `image`, `confident` that replace the defaults of every mode.
        progress: gets a line before each file.

    Returns:
        The report (a dict that JSON can hold) and the label maps by (target, mode).

    Raises:
        BundleError: a file does not run.
        TargetError: a target cannot be used.
    """
    timing = Timing(tuple(sorted({1, threads or cores()})), runs, warmup)
    chosen = _chosen(bundle, modes)
    targets = targets or [Host()]
    names = [target.name for target in targets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TargetError(f"{twice[0]}: two targets have this name; run them one after the other")
    places, results, label_maps, firsts = [], [], {}, {}
    count = len(bundle.golden)
    for target in targets:
        with target:
            places.append(
                {"name": target.name, "machine": target.machine, "emulated": target.emulated}
            )
            files = [(m["mode"], file) for m in chosen if (file := target.file(bundle, m))]
            if not files:
                asked = ", ".join(m["mode"] for m in chosen)
                raise TargetError(f"{target.name}: has no file to run for {asked}")
            for mode, model in files:
                progress(f"{target.name}: {model['file']}: {count} image{'s' * (count != 1)}")
                outcome = target.run(bundle, model, timing)
                result = _measured(bundle, target, model, outcome)
                # Of the first target each file is its own first.
                first = firsts.setdefault(mode, result)
                label_maps[target.name, mode] = outcome.labels
                other = label_maps[first["target"], mode]
                result["against_first"] = {
                    **differing(bundle, outcome.labels, other),
                    "same_file": result["file"] == first["file"],
                    "same_kernels": result["kernels"] == first["kernels"],
                }
                mode_limits = limits_for(model["mode"], **(limits or {}))
                result["limits"] = vars(mode_limits)
                result["failures"] = failures(result, mode_limits)
                results.append(result)
    report = {
        "bundle": str(bundle.path),
        "source": bundle.info.get("source"),
        "kfcn_version": bundle.info.get("kfcn_version"),
        "size": list(bundle.size),
        "classes": list(bundle.classes),
        "golden_images": len(bundle.golden),
        "targets": places,
        "passed": not any(r["failures"] for r in results),
        "models": results,
    }
    return report, label_maps


def _chosen(bundle: Bundle, modes: Sequence[str] | None) -> list[dict]:
    """The models of these modes, of all when None; a BundleError where it lacks one of them."""
    chosen = [m for m in bundle.models if modes is None or m["mode"] in modes]
    missing = [mode for mode in modes or () if mode not in {m["mode"] for m in chosen}]
    if missing or not chosen:
        present = ", ".join(m["mode"] for m in bundle.models)
        raise BundleError(f"{bundle.path}: no model of mode {', '.join(missing)}; it has {present}")
    return chosen


def _measured(bundle: Bundle, target: Target, model: dict, outcome: Outcome) -> dict:
    """What the report says of a file on a target by itself."""
    return {
        "target": target.name,
        **validate_model(bundle, model, outcome.labels),
        "latency": outcome.latency,
        "kernels": outcome.kernels,
        "confidence_error": _confidence_error(bundle, outcome.confidences),
    }


def _confidence_error(bundle: Bundle, confidences: Sequence[np.ndarray] | None) -> dict | None:
    """The largest error of all images' probabilities and whose it is; None where there are none."""
    logits = [golden.logits for golden in bundle.golden if golden.logits is not None]
    if confidences is None or len(logits) < len(bundle.golden):
        return None
    errors = [confidence_error(given, x) for given, x in zip(confidences, logits, strict=True)]
    worst = int(np.argmax(errors))
    return {"value": errors[worst], "image": bundle.golden[worst].name}


def differing(bundle: Bundle, labels: Sequence[np.ndarray], first: Sequence[np.ndarray]) -> dict:
    """How many pixels of two targets' label maps differ, and in which image the most."""
    counts = [int(np.count_nonzero(a != b)) for a, b in zip(labels, first, strict=True)]
    worst = int(np.argmax(counts))
    pixels = sum(golden.labels.size for golden in bundle.golden)
    return {"differing": sum(counts), "pixels": pixels, "image": bundle.golden[worst].name}


def parser() -> argparse.ArgumentParser:
    """The arguments of `kfcn-validate`."""
    parser = Parser(
        prog="kfcn-validate",
        description="Prove that a bundle's .tflite files label pixels as the Keras model does.",
        epilog="Exit code: 0 every gate passed, 1 a gate failed or a file could not be written, "
        "2 the bundle cannot be used.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that kfcn-convert wrote")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAME",
        help="where to run in addition to this host, repeatable: "
        + "; ".join(f"{spelled(name)} ({kind.help})" for name, kind in KINDS.items()),
    )
    parser.add_argument("--mode", action="append", choices=MODES, help="only this mode; repeatable")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.json",
        help="write the report here, and as FILE.html next to it",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that kfcn did not write"
    )
    parser.add_argument(
        "--threads",
        type=number(int, 1),
        metavar="N",
        help="second thread count to time (default: cores)",
    )
    parser.add_argument(
        "--runs",
        type=number(int, 0),
        metavar="N",
        default=30,
        help="timed runs; 0: none (default 30)",
    )
    parser.add_argument(
        "--warmup",
        type=number(int, 0),
        metavar="N",
        default=5,
        help="untimed runs before those (default 5)",
    )
    for name, text in (
        ("--min-agreement", "least agreement over all pixels"),
        ("--min-image", "least agreement of each image"),
        ("--min-confident", "least agreement on pixels with a margin above 1"),
    ):
        parser.add_argument(
            name, type=number(float, 0, 1), metavar="0..1", help=f"{text}, in every mode"
        )
    parser.add_argument(
        "--failures",
        type=Path,
        metavar="DIR",
        help="folder for the pictures of a failed gate (default .)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command `kfcn-validate`."""
    print_any_letters()
    cli = parser()
    args = cli.parse_args(argv)
    if args.report and (not args.report.suffix or args.report.is_dir()):
        cli.error(f"--report {args.report}: expected the name of a file, such as report.json")
    limits = {
        "agreement": args.min_agreement,
        "image": args.min_image,
        "confident": args.min_confident,
    }
    report_file = None
    if args.report:
        report_file = Outputs(args.report.parent, args.overwrite, args.bundle)
    json_name, html_name = _report_names(args.report) if args.report else ("", "")
    try:
        with contextlib.ExitStack() as held:
            held.enter_context(closing_on_sigterm())
            if report_file:
                report_file.check([json_name, html_name])
                held.enter_context(report_file.lock(json_name))
            # The host comes first, always: it is what the other targets are compared with.
            names = dict.fromkeys(["host", *args.target])
            targets = [target for name in names for target in make_targets(name, _say)]
            bundle = read_bundle(args.bundle)
            report, label_maps = validate(
                bundle,
                targets=targets,
                modes=args.mode,
                threads=args.threads,
                runs=args.runs,
                warmup=args.warmup,
                limits=limits,
                progress=_say,
            )
            print(table(report))
            pictures = Outputs(args.failures or Path(), args.overwrite, args.bundle)
            _write_failures(bundle, report, label_maps, pictures)
            if report_file:
                from kfcn_mobile.report.page import html_page

                text = json.dumps(report, indent=1) + "\n"
                report_file.write(json_name, text.encode())
                report_file.write(html_name, html_page(bundle, report, label_maps).encode())
    except (BundleError, TargetError, OutputError) as error:
        print(f"kfcn-validate: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, WriteError) else 2
    except OSError as error:  # of a temporary file, or of one that is fetched
        print(f"kfcn-validate: error: {which_and_why(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("kfcn-validate: stopped", file=sys.stderr)
        return 130
    return 0 if report["passed"] else 1


def _report_names(path: Path) -> tuple[str, str]:
    """The names of the report as JSON and as a page, whichever of the two was named."""
    if path.suffix.lower() in (".html", ".htm"):
        return path.with_suffix(".json").name, path.name
    return path.name, path.with_suffix(".html").name


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write_failures(bundle: Bundle, report: dict, label_maps: dict, pictures: Outputs) -> None:
    from kfcn_mobile.report.pictures import disagreement

    index = {golden.name: i for i, golden in enumerate(bundle.golden)}
    first = report["targets"][0]["name"]
    for model in report["models"]:
        on = model["target"]
        where = "" if on == first else f"{on}: "
        for failure in model["failures"]:
            print(f"FAILED {where}{explain(model['mode'], failure)}", file=sys.stderr)
        for name in sorted({failure["image"] for failure in model["failures"]}):
            i = index[name]
            middle = "" if on == first else f"{on.replace(' ', '-').replace(':', '-')}_"
            picture = disagreement(
                bundle.golden[i], label_maps[on, model["mode"]][i], bundle.palette
            )
            content = io.BytesIO()
            picture.save(content, "PNG")
            try:
                file = pictures.write(
                    f"disagreement_{middle}{model['mode']}_{i:04d}.png", content.getvalue()
                )
                print(f"wrote {file} ({name})", file=sys.stderr)
            except OutputError as error:  # the report says the same in numbers
                print(f"kfcn-validate: {error}", file=sys.stderr)
