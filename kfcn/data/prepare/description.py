"""What TFDS and kfcn want to know of the files of a pass."""

from pathlib import Path

import numpy as np

from kfcn.data.catalog import Source
from kfcn.data.prepare.shard import TITLE, Shard, features, read_note
from kfcn.data.sets.prepared import CARD
from kfcn.files import write_json, writing


def describe(out: Path, source: Source, datasets, shards: list[Shard]) -> None:
    """Writes what TFDS and kfcn want to know of the files."""
    import tensorflow_datasets as tfds

    infos, counted = [], {}
    for split, dataset in datasets.items():
        notes = [read_note(s.done, len(dataset.classes)) for s in shards if s.split == split]
        template = tfds.core.ShardedFileTemplate(
            data_dir=out, dataset_name=TITLE, split=split, filetype_suffix=shards[0].format
        )
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[note["images"] for note in notes],
                num_bytes=sum(note["bytes"] for note in notes),
                filename_template=template,
            )
        )
        counted[split] = {
            "pixels": np.sum([note["pixels"] for note in notes], axis=0).tolist(),
            "image_pixels": np.sum([note["image_pixels"] for note in notes], axis=0).tolist(),
            "ignored": sum(note["ignored"] for note in notes),
            "images": sum(note["images"] for note in notes),
            "notes": list(dataset.notes),
        }
    with writing(out / "dataset_info.json"):
        tfds.folder_dataset.write_metadata(
            data_dir=out,
            features=features(),
            split_infos=infos,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=out, dataset_name=TITLE, filetype_suffix=shards[0].format
            ),
            version="1.0.0",
            check_data=False,
        )
    classes = next(iter(datasets.values())).classes
    write_json(
        out / CARD,
        {
            "source": source.name,
            "stretch": source.as_read.stretch,
            "classes": list(classes.names),
            "palette": [list(colour) for colour in classes.palette],
            "splits": counted,
        },
    )
