"""What every command shares: the exit codes and how an error is told."""

import argparse
import io
import sys
from collections.abc import Callable, Sequence

from kfcn.errors import KfcnError, Stopped, UsageError
from kfcn.machine import import_tensorflow, use_onednn

# As texts, because the data sets themselves import NumPy and `--help` must not.
DATA_NAMES = "camvid, folder, voc, coco, ade20k, cityscapes, pet, prepared, tfds:NAME"
CLASSES_HELP = "of coco: voc or voc-200 (VOC's 21 classes); of tfds:NAME: a classes.txt"
OVERWRITE_HELP = "replace files that are there already, whoever wrote them; never an input"
IGNORE_HELP = (
    "the stored label that is ignored: 255, or none where masks hold 255 for a class, which is "
    "then the last one"
)
PAGES_HELP = "all: each page of a file of several is a picture of its own, and so is its label map"
BEAM_HELP = (
    "let Apache Beam do it, with Beam's own flags: --beam, or --beam='--runner=FlinkRunner "
    "--flink_master=HOST:8081'; every worker must see the folders"
)


def run(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
    prepare: Callable[[argparse.Namespace], object] = lambda args: use_onednn(),
    tensorflow: bool = True,
) -> int:
    """Parses `argv`, does `work(args)` and returns the exit code.

    `prepare(args)` comes first, before TensorFlow is imported; with `tensorflow` False only what
    needs it imports it.

    0 when the work is done, 1 when it failed, 2 when the request makes no sense, 130 when
    Ctrl-C stopped it (143: SIGTERM). `work` may return an exit code of its own.
    """
    # A class of any name can be printed, also where the console lacks its letters (Windows).
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = parser.parse_args(argv)
    try:
        prepare(args)
        if tensorflow:
            import_tensorflow()
        return work(args) or 0
    except KfcnError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except Stopped as stop:
        print(f"{parser.prog}: {stop}", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        return 130
