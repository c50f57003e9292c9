"""Record files (ArrayRecord or TFRecord) at random access, as tensorflow_datasets lays them out."""

import struct
from pathlib import Path

import numpy as np

from kfcn.errors import DataError


class ArrayRecords:
    """The records of ArrayRecord files."""

    def __init__(self, parts):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._source = ArrayRecordDataSource(parts)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> bytes:
        return self._source[index]


class TFRecords:
    """The records of TFRecord files, found by walking once over the lengths before each.

    Raises:
        DataError: a file is missing, ends within a record, or has another number of them than the
            description of the data set says.
    """

    def __init__(self, parts):
        self._files = [Path(part.filename) for part in parts]
        places = []
        for number, part in enumerate(parts):
            found = np.array(_walk(self._files[number]), np.int64).reshape(-1, 2)
            if len(found) != part.examples_in_shard:
                raise DataError(
                    f"{self._files[number]}: holds {len(found)} records; expected "
                    f"{part.examples_in_shard}: copy it again, or prepare it again"
                )
            chosen = found[part.skip : part.skip + part.take]
            places.append(np.insert(chosen, 0, number, axis=1))
        self._places = np.concatenate(places) if places else np.zeros((0, 3), np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> bytes:
        number, start, length = map(int, self._places[index])
        # Opened anew, which costs microseconds: threads share no position, and Windows has no
        # `pread`.
        with self._files[number].open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)


def _walk(path: Path) -> list[tuple[int, int]]:
    """Start and length of each record: 8 bytes of length, 4 of its CRC, the record, 4 of CRC."""
    places, start = [], 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            while start + 12 <= size:
                file.seek(start)
                (length,) = struct.unpack("<Q", file.read(12)[:8])
                places.append((start + 12, length))
                start += length + 16
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); copy it again, or prepare it again"
        ) from error
    if start != size:
        raise DataError(f"{path}: ends in the middle of a record; prepare it again")
    return places
