"""Data sets in record files (ArrayRecord or TFRecord), as tensorflow_datasets lays them out."""

from collections.abc import Mapping

from kfcn.data.dataset import Dataset, Sample
from kfcn.data.formats.images import read_image
from kfcn.data.formats.label_maps import read_labels
from kfcn.data.formats.records import ArrayRecords, TFRecords
from kfcn.data.sets.pairs import table
from kfcn.errors import DataError, first_line
from kfcn.labels import Classes


class RecordSet(Dataset):
    """One split of a data set that TFDS has prepared, at random access.

    Images and masks are decoded by `kfcn.data.formats.images`, not by TensorFlow, which turns the
    indices of a palette PNG into grey values without a word.

    Args:
        name: the data set's name.
        split: one of its splits, or a part of one such as `train[:90%]`.
        info: TFDS' `DatasetInfo` of a prepared data set.
        keys: the features that hold the image, the mask, and the file name ("" for none).
        classes: the classes.
        relabel: stored label -> class index or 255.
    """

    name = "tfds"

    def __init__(
        self,
        name: str,
        split: str,
        info,
        keys: tuple[str, str, str],
        classes: Classes,
        relabel: Mapping[int, int] | None = None,
    ):
        self.name, self.split, self.classes = name, split, classes
        self._image, self._mask, self._file_name = keys
        self._relabel = table(relabel) if relabel else None
        parts = info.splits[split].file_instructions
        kind = str(getattr(info.file_format, "value", info.file_format))
        self._records = ArrayRecords(parts) if kind == "array_record" else TFRecords(parts)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        features = self._features(index)
        name = self._name(features, index)
        labels = read_labels(_bytes(features, self._mask), f"{name} ({self._mask})")
        if self._relabel is not None:
            labels = self._relabel[labels]
        image = read_image(_bytes(features, self._image), name, self.stretch)
        return Sample(image, labels, name)

    def stored_image(self, index: int) -> bytes:
        """The content of the stored image file."""
        return _bytes(self._features(range(len(self))[index]), self._image)

    def file_name(self, index: int) -> str:
        """The file's name where the records hold one, else such as `tfds:NAME/train/000012`."""
        if not self._file_name:
            return self._name(None, range(len(self))[index])
        return self._name(self._features(index), index)

    def _features(self, index: int):
        from google.protobuf.message import DecodeError
        from tensorflow.train import Example

        try:
            return Example.FromString(self._records[index]).features.feature
        except (OSError, RuntimeError, ValueError, DecodeError) as error:
            raise DataError(
                f"{self.name}/{self.split}: record {index} cannot be read: {first_line(error)}"
            ) from error

    def _name(self, features, index: int) -> str:
        if self._file_name:
            return _bytes(features, self._file_name).decode(errors="replace")
        return f"{self.name}/{self.split}/{index:06d}"


def _bytes(features, key: str) -> bytes:
    values = features[key].bytes_list.value
    if not values:
        raise DataError(f"a record without {key!r}; prepare the data again")
    return values[0]
