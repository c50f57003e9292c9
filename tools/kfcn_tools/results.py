"""kfcn_tools.results: a table of results from run folders, so that no figure is typed.

python -m kfcn_tools.results RUN... --store docs/results.json --out docs/RESULTS.md

Run folders are large and do not last; the store keeps what the table needs of them. A folder of
`kfcn_tools.benchmarks.labels` may stand among them; what was measured there has a section of its
own behind the tables.
"""

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfcn.commands._cli import Parser, run
from kfcn.errors import KfcnError, UsageError, counted, first_line
from kfcn.files import read_bytes, read_object, sha256, write_json, write_text
from kfcn_tools.figures import spread

FIGURES = {
    "pixel_accuracy": "pixel acc.",
    "mean_accuracy": "mean acc.",
    "mean_iou": "mean IoU",
    "frequency_weighted_iou": "f.w. IoU",
    "boundary_iou": "boundary IoU",
}
OWN_COLUMN = ("recipe", "seed", "data", "arch", "backbone", "epochs", "val_split")
"""Settings that have columns of their own, not one under "changed"."""
UNKNOWN = "-"


@dataclass(frozen=True)
class Result:
    """One evaluation of one run.

    Attributes:
        settings: of the run, without paths of the machine.
        measured: data set and split, number of images, protocol.
        figures: by the names of `FIGURES`, in 0..1; None where the run does not know it.
        parameters: of the net.
        seconds: of all training steps.
        hardware: in words.
        versions: of TensorFlow and Keras.
    """

    settings: dict[str, Any]
    measured: tuple[str, int, str]
    figures: dict[str, float | None]
    parameters: int
    seconds: float
    hardware: str
    versions: str

    @property
    def same(self) -> str:
        """Equal for results that differ in the seed only."""
        kept = {name: value for name, value in self.settings.items() if name != "seed"}
        return json.dumps([kept, self.measured], sort_keys=True)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Result":
        """One that was stored, with the defaults of settings that came later."""
        from kfcn.training.resolution import from_stored

        settings = dataclasses.asdict(from_stored(values))
        return cls(**{**values, "settings": settings, "measured": tuple(values["measured"])})


def read_run(path: Path | str) -> list[Result]:
    """The results of a finished run: that of its card, then those of `kfcn-evaluate --json`.

    The latter are files `*.json` in the run folder, of other splits or protocols.

    Raises:
        UsageError: no finished run.
        KfcnError: a file that is damaged.
    """
    from kfcn.cards import read_card
    from kfcn.saved import CARD, model_path
    from kfcn.training.run_folder import RunFolder

    folder = RunFolder(path)
    if not folder.config.is_file() or not folder.finished:
        raise UsageError(
            f"{path}: expected the folder of a finished run, with config.json and {CARD}"
        )
    stored, card = folder.stored_settings(), read_card(path)
    assert stored is not None and card is not None  # their files are there
    settings = dataclasses.asdict(stored)
    for name in ("weights", "init_from", "unlabelled_dir"):
        settings[name] = settings[name] and Path(settings[name]).name
    settings["data_dir"] = None
    try:
        config = json.loads(folder.config.read_text(encoding="utf-8"))
        with folder.history.open(encoding="utf-8") as file:
            seconds = sum(float(row["seconds"]) for row in csv.DictReader(file))
        found = [{"data": f"{card['data']}/{card['split']}", **card["metrics"]}]
        for file in sorted(folder.path.glob("*.json")):
            values = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(values, dict) or not {"mean_iou", "model"} <= values.keys():
                continue
            if "model_sha256" in values and values["model_sha256"] != sha256(model_path(path)):
                raise KfcnError(
                    f"{file} is an evaluation of another model ({values['model']}); measure this "
                    "run again, or move the file away"
                )
            found.append(values)
        results = [
            Result(
                settings,
                (values["data"], values["images"], values.get("protocol", "single scale")),
                {name: values.get(name) for name in FIGURES},
                card["parameters"],
                seconds,
                hardware(config.get("machine")),
                ", ".join(f"{n} {config['versions'][n]}" for n in ("tensorflow", "keras")),
            )
            for values in found
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KfcnError(f"{path} is damaged: {first_line(error)}") from error
    # The same measurement twice: what was measured later stands in a file, and may know more.
    return list({result.measured: result for result in results}.values())


@dataclass(frozen=True)
class Store:
    """What docs/RESULTS.md is made of.

    Attributes:
        results: evaluations of runs, in the order of their tables.
        sections: title -> text, of what `kfcn_tools.benchmarks.labels` measured.
    """

    results: list[Result]
    sections: dict[str, str]

    @classmethod
    def read(cls, path: Path | str) -> "Store":
        """What was stored; nothing where there is no such file.

        Raises:
            KfcnError: the file is damaged.
        """
        if not Path(path).is_file():
            return cls([], {})
        try:
            stored = read_object(path)
            results = [Result.from_json(values) for values in stored["results"]]
            return cls(results, {str(k): str(v) for k, v in stored["sections"].items()})
        except (ValueError, KeyError, TypeError, AttributeError, KfcnError) as error:
            raise KfcnError(f"{path} is damaged: {first_line(error)}") from error

    def with_new(self, results: Sequence[Result], sections: dict[str, str]) -> "Store":
        """The new results, and behind them those of the store that were not measured again."""
        new = {(result.same, result.settings["seed"]) for result in results}
        kept = [r for r in self.results if (r.same, r.settings["seed"]) not in new]
        return Store([*results, *kept], self.sections | sections)

    def write(self, path: Path | str) -> None:
        """Stores it."""
        write_json(path, dataclasses.asdict(self))


def hardware(machine: dict[str, Any] | None) -> str:
    """A machine of `config.json` in words; old runs have none."""
    if not machine:
        return "not recorded"
    gpus = machine["gpus"]
    if gpus:
        return f"{len(gpus)} x {gpus[0]}" if len(gpus) > 1 else gpus[0]
    cores = machine["cores"]
    return f"{machine['cpu']}, {cores} core{'s' if cores > 1 else ''}"


_MARK = "Written by `python -m kfcn_tools.results`"
_FEW = (
    "Measured by `python -m kfcn_tools.benchmarks.labels`. The nets are trained for a few minutes "
    "each, so that many can be compared: read the differences."
)


def document(results: Sequence[Result], sections: Mapping[str, str] = {}) -> str:
    """The page: a table for each data set, split and protocol, then the sections.

    Runs that differ in the seed only share a row.
    """
    lines = [
        "# Results",
        "",
        f"{_MARK} from run folders. Figures in percent; of "
        "several seeds their mean, with the least and the greatest in brackets. The net is the one "
        "of the epoch with the best mean IoU on the validation split of its run. Time is that of "
        "the training steps, on the hardware named and with whatever else that was doing. Tables "
        "of different splits or protocols are not to be compared.",
    ]
    for measured in dict.fromkeys(result.measured for result in results):
        lines += ["", *_table(measured, [r for r in results if r.measured == measured])]
    if results:
        lines += ["", f"Versions: {'; '.join(sorted({r.versions for r in results}))}."]
    if sections:
        lines += ["", "# From few labels", "", _FEW]
    for title, text in sorted(sections.items()):
        lines += ["", f"## {title}", "", text]
    return "\n".join([*lines, ""])


def _table(measured: tuple[str, int, str], results: Sequence[Result]) -> list[str]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.same, []).append(result)
    rows = list(groups.values())
    base = rows[0][0]
    data, images, protocol = measured
    head = [
        "net",
        "changed",
        "parameters",
        "epochs",
        "seeds",
        *FIGURES.values(),
        "time",
        "hardware",
    ]
    lines = [f"## {data}, {counted(images, 'image')}, {protocol}", ""]
    lines += [
        f"Changed is against the first row, whose own settings are: {_own(base.settings)}.",
        "",
    ]
    lines += [_row(head), _row(["---"] * len(head))]
    return lines + [_row(_cells(group, base)) for group in rows]


def _cells(group: Sequence[Result], base: Result) -> list[str]:
    first = group[0]
    changed = {
        name: value
        for name, value in first.settings.items()
        if name not in OWN_COLUMN and value != base.settings[name]
    }
    return [
        net(first.settings),
        _listed(changed) or UNKNOWN,
        f"{first.parameters / 1e6:.2f} M",
        str(first.settings["epochs"]),
        ", ".join(str(result.settings["seed"]) for result in group),
        *(_spread([result.figures[name] for result in group]) for name in FIGURES),
        _duration(sum(result.seconds for result in group) / len(group)),
        "; ".join(dict.fromkeys(result.hardware for result in group)),
    ]


def net(settings: dict[str, Any]) -> str:
    """Architecture and backbone, as in "fcn8s, mobilenet_v2"."""
    if settings["arch"] == "convnet":
        return settings["arch"]
    return f"{settings['arch']}, {settings['backbone']}"


def _own(settings: dict[str, Any]) -> str:
    """The settings of a run that differ from the defaults of its recipe or data set."""
    from kfcn.training.resolution import resolve

    named: dict[str, Any] = {name: settings[name] for name in ("recipe", "data") if settings[name]}
    more: dict[str, Any] = {"init_from": "-"} if settings["crf"] else {}
    defaults = dataclasses.asdict(resolve(**named, arch=settings["arch"], **more))
    left_out = {*OWN_COLUMN} - {"epochs"}
    if defaults["epochs"] is None:  # then it followed the size of the data set
        left_out.add("epochs")
    changed = {n: v for n, v in settings.items() if n not in left_out and v != defaults[n]}
    start = f"those of the recipe `{settings['recipe']}`" if settings["recipe"] else "the defaults"
    return f"{start}, {_listed(changed)}" if changed else start


def _listed(changed: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_in_words(value)}" for name, value in changed.items())


def _in_words(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "x".join(map(_in_words, value))
    if isinstance(value, dict):
        return _listed(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return UNKNOWN if len(known) < len(values) else spread(known)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    cli = Parser(
        prog="python -m kfcn_tools.results",
        description="Write a table of results from run folders. Runs that differ in the seed only "
        "share a row; the first run is what the others are compared with. Evaluations that lie in "
        "a run folder (kfcn-evaluate RUN --flip --json RUN/flip.json) have tables of their own.",
    )
    cli.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="folders of finished runs, or of kfcn_tools.benchmarks.labels",
    )
    cli.add_argument("--out", metavar="FILE", help="Markdown file (default: print)")
    cli.add_argument(
        "--store",
        metavar="FILE",
        help="JSON file of results whose run folders are gone; they follow, and those of RUN are "
        "added to it",
    )
    return cli


def work(args: argparse.Namespace) -> None:
    """Reads, and writes or prints."""
    from kfcn_tools.benchmarks.labels.report import section
    from kfcn_tools.benchmarks.labels.training import RESULTS

    if not args.runs and not args.store:
        raise UsageError("expected run folders, or a --store of earlier ones; received neither")
    if args.out and args.store and Path(args.out).resolve() == Path(args.store).resolve():
        raise UsageError(f"--store and --out are both {args.out}; expected a file for each")
    if args.out and Path(args.out).exists() and _MARK.encode() not in read_bytes(args.out):
        raise UsageError(f"{args.out} already exists and is not a page of results; choose another")
    measured = [path for path in args.runs if (Path(path) / RESULTS).is_file()]
    results = [r for path in args.runs if path not in measured for r in read_run(path)]
    store = Store.read(args.store) if args.store else Store([], {})
    store = store.with_new(results, dict(map(section, measured)))
    if args.store:
        store.write(args.store)
    text = document(store.results, store.sections)
    if args.out:
        write_text(args.out, text)
        print(
            f"wrote {args.out}: {len(store.results)} results, {len(store.sections)} measurements, "
            f"{len(args.runs)} folders read now"
        )
    else:
        print(text, end="")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
