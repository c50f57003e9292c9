"""`kfcn-predict --beam`: collections that are too large for one machine, on Apache Beam.

Beam's own flags choose where it runs: its DirectRunner on this machine, Flink, Spark or Dataflow.
Every worker must see the folders by the same paths. The files are the same bytes as from
`kfcn.predict`, because each worker does what it does, image by image.
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kfcn.cards import read_card
from kfcn.data.reading import Reading
from kfcn.errors import KfcnError, UsageError, first_line, require
from kfcn.files import sha256
from kfcn.inference.collect import collect
from kfcn.inference.formats import writer_for
from kfcn.inference.predict import Predictions, inputs_of, predict_file
from kfcn.inference.runtime.net import open_net
from kfcn.inference.writer import Writer
from kfcn.machine import cores
from kfcn.outputs import Outputs
from kfcn.saved import files_of, model_path

DEAD_LETTER = "dead-letter.jsonl"
"""Beside the results: a line of JSON for each image that could not be done, with the reason."""
_DEFAULTS = (
    "--default_sdk_harness_log_level=WARNING",
    # Several workers on this machine are threads, which share one net. As processes each would
    # have its own TensorFlow, at 0.8 GB.
    "--direct_running_mode=multi_threading",
)


def predict_by_beam(
    model: Path | str,
    images: Path | str | Iterable[Path | str],
    out: Path | str,
    crf: bool = False,
    format: str = "png",
    flags: Sequence[str] = (),
    overwrite: bool = False,
) -> tuple[Predictions, int]:
    """Segments images as `kfcn.predict` does, by the workers of Apache Beam.

    Args:
        model: a model file or a run folder, which the workers load.
        images, out, crf, format, overwrite: as in `kfcn.predict`.
        flags: Beam's own, such as `--runner=FlinkRunner`, or `--direct_num_workers=2` for two
            threads of this machine (`--direct_running_mode=multi_processing`: processes).

    Returns:
        What was written and what could not be done (also in `DEAD_LETTER`), and how many images
        were left out because the same model had made their results before. Results of another
        one are written anew.

    Raises:
        UsageError: Beam is not installed, or what `kfcn.predict` raises.
        KfcnError: the pipeline failed.
    """
    require("apache_beam", "--beam", "beam")
    images = [images] if isinstance(images, (str, Path)) else list(images)
    # Not `resolve`: results have the names of links, not of the files that these lead to.
    paths = [path.absolute() for path in collect(images)]
    model = model_path(model).resolve()
    inputs = [*inputs_of(model, images), *paths]
    outputs = Outputs(Path(out).resolve(), inputs, overwrite, by=_maker(model, crf))
    card = read_card(model)
    # The net itself is the workers' affair; here only its number of classes may be wanted.
    writer = writer_for(None if card else open_net(model)[0].classes, card, outputs, format)
    if not writer.by_beam:
        raise UsageError(f"--format {format} is one file of all pictures; use it without --beam")
    letters = outputs.folder / DEAD_LETTER
    writer.check(paths)
    with outputs.lock():
        kept = writer.check(paths)
        outputs.check([letters])
        writer.start()
        letters.unlink(missing_ok=True)
        chosen = [path for path in paths if path not in kept]
        missing = [path for path in chosen if overwrite or not _is_done(writer, path)]
        if missing:
            _segment(model, crf, missing, writer, letters, flags)
        failed = _failed(letters)
        if failed:
            outputs.note(letters, sha256(letters))
        else:
            letters.unlink(missing_ok=True)
        done = [path for path in chosen if path not in failed]
        writer.finish(done)
    new = set(missing)
    written = [writer.targets(path)[-1] for path in done if path in new]
    result = Predictions(written, failed, list(kept.values()))
    return result, len(chosen) - len(missing)


def _maker(model: Path, crf: bool) -> str:
    """What results follow from beside the pictures: the model, what is read beside it, the CRF."""
    found = [sha256(file) if file.is_file() else None for file in files_of(model)]
    return hashlib.sha256(json.dumps([*found, crf]).encode()).hexdigest()


def _is_done(writer: Writer, path: Path) -> bool:
    """Whether the same model has made all results of an image."""
    outputs = writer.outputs
    return all(outputs.made_by(target) == outputs.by for target in writer.targets(path))


def _segment(
    model: Path, crf: bool, paths: list[Path], writer: Writer, letters: Path, flags: Sequence[str]
) -> None:
    """Has the workers segment images; what they cannot do is written to `letters`.

    Raises:
        KfcnError: the pipeline failed.
    """
    import apache_beam as beam
    from apache_beam.io import WriteToText
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions([*_DEFAULTS, *flags])
    handler = _handler()(str(model), crf, writer, _threads(options))
    letter_file = WriteToText(
        str(letters.with_suffix("")), file_name_suffix=letters.suffix, shard_name_template=""
    )
    try:
        with beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                # As bytes: a name need not be text.
                | "images" >> beam.Create([os.fsencode(path) for path in paths])
                | "spread" >> beam.Reshuffle()
                | "segment" >> RunInference(handler)
                | "failed" >> beam.Filter(lambda result: result.inference is not None)
                | "as JSON" >> beam.Map(_letter)
                | "dead letters" >> letter_file
            )
    except Exception as error:  # Beam wraps what a worker raised into errors of its runners
        raise KfcnError(f"Beam failed: {first_line(error)}") from error


def _failed(letters: Path) -> dict[Path, str]:
    """What the workers could not do, and why."""
    if not letters.is_file():
        return {}
    lines = map(json.loads, letters.read_text(encoding="utf-8").splitlines())
    return {Path(line["image"]): line["reason"] for line in lines}


def _letter(result) -> str:
    letter = {"image": os.fsdecode(result.example), "reason": result.inference}
    text = json.dumps(letter, ensure_ascii=False)
    # What is not text in a name is written as an escape, which JSON reads back.
    return text if text.isprintable() else json.dumps(letter)


def _threads(options) -> int | None:
    """TensorFlow's threads in each worker; None for its own choice, which is all cores.

    Processes of this machine divide the cores. They would take turns otherwise, at half the speed.
    """
    from apache_beam.options.pipeline_options import DirectOptions

    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode != "multi_processing":
        return None
    return max(1, cores() // (direct.direct_num_workers or cores()))


def _handler() -> type:
    """The class that loads a net once in each worker and segments image files with it.

    Made when it is needed: its base class is Beam's.
    """
    from apache_beam.ml.inference.base import ModelHandler, PredictionResult

    class Segmenter(ModelHandler):
        """Segments image files; the result is None, or why that could not be done."""

        def __init__(self, model: str, crf: bool, writer: Writer, threads: int | None):
            super().__init__()
            self.model, self.crf, self.writer, self.threads = model, crf, writer, threads

        def load_model(self):
            if self.threads is not None:
                import tensorflow as tf

                with contextlib.suppress(RuntimeError):  # TensorFlow has begun to compute
                    tf.config.threading.set_intra_op_parallelism_threads(self.threads)
                    tf.config.threading.set_inter_op_parallelism_threads(self.threads)
            net, card = open_net(self.model, self.crf, self.threads)
            stretch = Reading.of_card(card).stretch
            return functools.partial(predict_file, net, writer=self.writer, stretch=stretch)

        def run_inference(self, batch, model, inference_args=None):
            for path in batch:
                yield PredictionResult(path, model(Path(os.fsdecode(path))))

        def batch_elements_kwargs(self):
            # Images have their own sizes and go through the net one by one; a batch is what a
            # worker takes at a time.
            return {"min_batch_size": 1, "max_batch_size": 8}

        def get_metrics_namespace(self) -> str:
            return "kfcn"

    return Segmenter
