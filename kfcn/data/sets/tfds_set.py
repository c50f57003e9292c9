"""Any data set of tensorflow_datasets that has an image and a mask: `tfds:NAME`.

What may be downloaded, TFDS downloads and prepares once, as ArrayRecord files; what is there
already, in whatever format, is read as it is.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kfcn.data.formats.classes_txt import read_classes
from kfcn.data.sets import ade20k, cityscapes, pet
from kfcn.data.sets.records import RecordSet
from kfcn.errors import KfcnError, UsageError, first_line
from kfcn.labels import IGNORE, Classes, voc_coloured


class _Known(NamedTuple):
    """A data set whose labels kfcn knows; the others are taken as they are stored."""

    image: str
    mask: str
    classes: Classes
    relabel: Mapping[int, int]


_KNOWN = {
    "scene_parse150": _Known("image", "annotation", ade20k.CLASSES, ade20k.RELABEL),
    "oxford_iiit_pet": _Known("image", "segmentation_mask", pet.CLASSES, pet.RELABEL),
    "cityscapes": _Known(
        "image_left", "segmentation_label", cityscapes.CLASSES, cityscapes.RELABEL
    ),
}
_MASK_WORDS = ("segmentation_mask", "segmentation_label", "mask", "annotation", "label", "segm")


class TfdsSet(RecordSet):
    """A split of `tfds:NAME`.

    The image is the feature `image` (or the only picture in colour), the mask is the picture
    whose feature is named like one. Classes come from kfcn where it knows the data set, else from
    `classes`, a classes.txt; without one the training masks are counted once.
    """

    def __init__(
        self, name: str, split: str, data_dir: str | Path | None = None, classes: str | None = None
    ):
        info = _info(name, _folder(data_dir))
        part = _parts(info)[split]
        image, mask = find_features(name, info.features)
        file_name = next((k for k in ("file_name", "image/filename") if k in info.features), "")
        keys = (image, mask, file_name)
        title, known = f"tfds:{name}", _KNOWN.get(name.split("/")[0].split(":")[0])
        relabel = None
        if classes is not None:
            chosen = read_classes(Path(classes))
        elif known is not None:
            chosen, relabel = known.classes, known.relabel
        elif "train" not in _parts(info):
            raise UsageError(
                f"{title} has no split train whose labels could be counted; name its classes with "
                "--classes classes.txt"
            )
        else:
            chosen = _counted(title, _parts(info)["train"], info, keys)
            self.notes = (
                f"{title}: found labels 0 to {len(chosen) - 1} and named them so; name them "
                "yourself with --classes classes.txt",
            )
        super().__init__(title, part, info, keys, chosen, relabel)
        self.split = split


def splits(name: str, data_dir: str | Path | None = None) -> tuple[str, ...]:
    """The data set's own splits, and `train` and `val` where it calls them otherwise."""
    return tuple(_parts(_info(name, _folder(data_dir))))


def _parts(info) -> dict[str, str]:
    """Split name -> what TFDS reads for it.

    Where there is neither `val` nor `validation`, the last tenth of `train` is `val`.
    """
    own = dict.fromkeys(info.splits)
    parts = {name: name for name in own}
    if "val" not in own:
        if "validation" in own:
            parts["val"] = "validation"
        elif "train" in own:
            parts |= {"train": "train[:90%]", "val": "train[90%:]"}
    return parts


def _folder(data_dir: str | Path | None) -> str | None:
    return None if data_dir is None else str(data_dir)


@functools.lru_cache(maxsize=4)
def _info(name: str, data_dir: str | None):
    """TFDS' description of a data set that is ready to be read; downloads it if need be."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        raise UsageError(f"tfds:{name}: {first_line(error)}") from error
    if not builder.is_prepared():
        find_features(name, builder.info.features)  # before gigabytes are fetched in vain
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False, file_format="array_record")
        _download(name, builder)
    return builder.info


def _download(name: str, builder) -> None:
    manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    place = Path(builder._data_dir_root) / "downloads" / "manual"
    if manual and not place.is_dir():
        raise UsageError(
            f"tfds:{name} may not be downloaded by a program. {' '.join(manual.split())} Put "
            f"them, as they are, into {place}"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # the network, a full disk, a changed checksum: not ours to mend
        raise KfcnError(f"tfds:{name} could not be prepared: {first_line(error)}") from error


def find_features(name: str, features) -> tuple[str, str]:
    """The features that hold the image and the mask.

    Raises:
        UsageError: there are no two such pictures.
    """
    import tensorflow_datasets as tfds

    if known := _KNOWN.get(name.split("/")[0].split(":")[0]):
        return known.image, known.mask
    pictures = {k: f for k, f in features.items() if isinstance(f, tfds.features.Image)}
    labelled = [k for k, f in pictures.items() if isinstance(f, tfds.features.LabeledImage)]
    masks = labelled or [k for word in _MASK_WORDS for k in pictures if word in k.lower()]
    mask = next(iter(masks), None)
    images = [k for k, f in pictures.items() if k != mask and f.shape[-1] != 1]
    image = "image" if "image" in images else next(iter(images), None)
    if image is None or mask is None:
        raise UsageError(
            f"tfds:{name} has no image with a mask; its features are {', '.join(features)}"
        )
    return image, mask


@functools.lru_cache(maxsize=4)
def _counted(title: str, split: str, info, keys: tuple[str, str, str]) -> Classes:
    """Classes named by their number, from the greatest label of the training masks."""
    records = RecordSet(title, split, info, keys, Classes((), ()))
    greatest = 0
    for index in range(len(records)):
        labels = records[index].labels
        greatest = max(greatest, int(np.where(labels == IGNORE, 0, labels).max(initial=0)))
    names = tuple(f"class {index}" for index in range(greatest + 1))
    return voc_coloured(names)
