"""Whether an image file is whole, and how it lies: what decoders pass over in silence.

A decoder makes the best of a damaged file. For a photograph on a page that is kind; a label map
with other numbers than were saved is not to be trained on.
"""

import struct
import zlib
from typing import BinaryIO, NamedTuple

from kfcn.data.formats.orientation import orientation_in

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the SOF markers: size of the picture
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a segment


def png_damage(content: bytes) -> str | None:
    """What is wrong with a PNG file, by its chunks and their checksums; None if it is sound."""
    place, view = len(PNG), memoryview(content)
    while True:
        if place + 12 > len(content):
            return "truncated: it ends without the chunk IEND"
        length = int.from_bytes(view[place : place + 4])
        kind = bytes(view[place + 4 : place + 8]).decode("latin-1")
        end = place + 12 + length
        if not (kind.isascii() and kind.isalpha()):
            return "damaged: something other than a chunk follows a chunk"
        if end > len(content):
            return f"truncated: it ends within the chunk {kind}"
        if zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            return f"damaged: the checksum of its chunk {kind} is wrong"
        if kind == "IEND":
            return None
        place = end


class JpegHead(NamedTuple):
    """What the head of a JPEG file says.

    Attributes:
        size: height and width as stored.
        orientation: of EXIF, 1 to 8; 1 where there is none, or no such number.
        scan: where the picture's data begin.
    """

    size: tuple[int, int]
    orientation: int
    scan: int


def jpeg_head(file: BinaryIO) -> JpegHead:
    """Reads the segments of a JPEG file up to its data.

    Raises:
        ValueError: it is none, or ends before.
    """
    file.seek(2)
    size, orientation = None, 1
    while True:
        byte = file.read(1)
        while byte == b"\xff":  # fill bytes may stand before a marker
            byte = file.read(1)
        marker = byte[0] if byte else 0xD9
        if marker in _ALONE:
            file.seek(1, 1)
            continue
        if marker in (0x00, 0xD9):
            break
        head = file.read(2)
        length = int.from_bytes(head) - 2
        if len(head) < 2 or length < 0:
            break
        if marker == 0xDA and size is not None:
            return JpegHead(size, orientation, file.tell() + length)
        if marker == 0xE1:
            body = file.read(length)
            if body.startswith(b"Exif\0\0"):
                orientation = orientation_in(body[6:])
        elif marker in _SIZES:
            body = file.read(length)
            if len(body) < 6:
                break
            size = struct.unpack(">HH", body[1:5])
        else:
            file.seek(length, 1)
        if file.read(1) != b"\xff":
            break
    raise ValueError("truncated: it ends before its picture begins")


def jpeg_ends(content: bytes, scan: int) -> bool:
    """Whether a JPEG file has its end marker (FFD9), which may be followed by a camera's own data.

    Args:
        content: the file.
        scan: where the picture's data begin (`JpegHead.scan`).
    """
    if content.endswith(b"\xff\xd9"):
        return True
    place = scan
    while (place := content.find(b"\xff", place)) >= 0 and place + 1 < len(content):
        marker = content[place + 1]
        if marker == 0xD9:
            return True
        if marker == 0xFF:
            place += 1
        elif marker == 0x00 or marker in _ALONE:  # a stuffed byte, a restart
            place += 2
        else:  # tables or another scan of a progressive file
            place += 2 + int.from_bytes(content[place + 2 : place + 4])
    return False
