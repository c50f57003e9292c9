"""PNG and TIFF files byte by byte: what Pillow and OpenCV read, and do not write."""

import struct
import zlib

import numpy as np


def png(numbers, bits, colour=0):
    """Grey (colour type 0) or RGB (2) of `bits` for each number; `(H, W[, 3])`."""
    height, width = numbers.shape[:2]
    rows = b"".join(b"\0" + packed(row, bits) for row in numbers.reshape(height, -1))
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def packed(row, bits):
    """Numbers of 1 to 16 bits, the first in the highest bits."""
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits((row.astype(np.int64)[:, None] >> shifts) & 1).tobytes()


def tiff(numbers, bits, photometric=1, orientation=1, planar=1, extra=None):
    """`(H, W[, C])`; photometric 0 counts down from white, 1 is grey, 2 is RGB."""
    height, width = numbers.shape[:2]
    bands = numbers.shape[2] if numbers.ndim == 3 else 1
    if bits == 16:
        planes = numbers.transpose(2, 0, 1) if planar == 2 else numbers
        data = planes.astype("<u2").tobytes()
    else:
        data = b"".join(packed(row, bits) for row in numbers.reshape(height, -1))
    strips = bands if planar == 2 else 1
    tags = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * bands), 259: (3, [1]),
        262: (3, [photometric]), 273: (4, [0] * strips), 274: (3, [orientation]),
        277: (3, [bands]), 278: (4, [height]), 279: (4, [len(data) // strips] * strips),
        284: (3, [planar]),
    }  # fmt: skip
    if extra is not None:
        tags[338] = (3, [extra])
    for _ in range(2):  # the second time it is known where the data begin
        place, entries, beyond = 8 + 2 + 12 * len(tags) + 4, b"", b""
        for number, (kind, values) in sorted(tags.items()):
            value = b"".join(struct.pack("<H" if kind == 3 else "<I", v) for v in values)
            if len(value) > 4:
                value, beyond = struct.pack("<I", place + len(beyond)), beyond + value
            entries += struct.pack("<HHI", number, kind, len(values)) + value.ljust(4, b"\0")
        start = place + len(beyond)
        tags[273] = (4, [start + i * len(data) // strips for i in range(strips)])
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + beyond + data
