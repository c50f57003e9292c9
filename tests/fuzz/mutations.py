"""Seeded damage: what disks, editors, other programs and people make of a sound file."""

import copy
import json
import math

import numpy as np

STRANGE = (
    None, True, False, 0, -1, 1, 2**31, 2**32 + 24, 2**63, 10**400, 0.5, -0.0, 1e5, 1e308, -1e308,
    math.nan, math.inf, -math.inf, "", "24", "\ud800", "é", "a\nb", "\0", "../../x", "x" * 5000,
    [], {}, [[]], [None], [1, 2], [[1, 2, 3]], {"a": 1},
)  # fmt: skip
DEPTH = 200_000


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Bytes with one to three kinds of damage."""
    for _ in range(rng.integers(1, 4)):
        content = _damaged_once(rng, content)
    return content


def _damaged_once(rng: np.random.Generator, content: bytes) -> bytes:
    if not content:
        return bytes(rng.integers(0, 256, rng.integers(0, 9), np.uint8))
    place = int(rng.integers(len(content)))
    length = int(min(rng.geometric(0.1), len(content) - place))
    kind = rng.integers(9)
    if kind == 0:  # a flipped bit
        return _with(content, place, bytes([content[place] ^ (1 << int(rng.integers(8)))]))
    if kind == 1:  # another byte
        return _with(content, place, bytes([int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))]))
    if kind == 2:  # cut off
        return content[:place]
    if kind == 3:  # a tail of zeros, as a full disk leaves it
        return content[:place] + bytes(len(content) - place)
    if kind == 4:
        return content[:place] + content[place + length :]
    if kind == 5:
        return content[: place + length] + content[place:]
    if kind == 6:
        noise = rng.integers(0, 256, length, np.uint8).tobytes()
        return _with(content, place, noise)
    if kind == 7:  # a number of four bytes, in the order of PNG or of TIFF
        number = int(rng.choice([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1]))
        return _with(content, place, number.to_bytes(4, str(rng.choice(["big", "little"]))))
    return content + rng.integers(0, 256, length, np.uint8).tobytes()


def _with(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def damaged_text(rng: np.random.Generator, text: str) -> bytes:
    """Text in another encoding, with other line ends, or with damaged bytes."""
    kind = rng.integers(6)
    if kind == 0:
        encoding = str(rng.choice(["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig"]))
        return text.encode(encoding, "replace")
    if kind == 1:
        return text.replace("\n", str(rng.choice(["\r\n", "\r", "\n\n", "\u2028"]))).encode()
    if kind == 2:  # lines that are there twice, in another order, or not at all
        lines = text.split("\n")
        return "\n".join(rng.choice(lines, len(lines) + 1)).encode()
    return damaged(rng, text.encode())


def damaged_json(rng: np.random.Generator, value) -> bytes:
    """JSON with strange values at one to three places, or with damaged bytes."""
    kind = rng.integers(8)
    if kind == 0:
        return damaged(rng, json.dumps(value).encode())
    if kind == 1 and rng.integers(8) == 0:
        deep = "[" * DEPTH + "]" * DEPTH
        key = rng.choice(list(value))
        return json.dumps({**value, str(key): "HERE"}).replace('"HERE"', deep).encode()
    value = json.loads(json.dumps(value))
    for _ in range(rng.integers(1, 4)):
        _change(rng, value)
    return json.dumps(value).encode()


def _change(rng: np.random.Generator, value) -> None:
    """Changes one place in a tree of dicts and lists; each branch is as likely as the others."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = keys[int(rng.integers(len(keys)))]
    inner = value[key]
    if isinstance(inner, (dict, list)) and inner and rng.integers(4):
        _change(rng, inner)
    elif rng.integers(5) == 0:
        del value[key]
    elif type(inner) in (int, float) and abs(inner) < 1e300 and rng.integers(2):
        value[key] = inner * float(rng.choice([-1, 0.5, 2, 1.001, 100])) + int(rng.integers(-1, 2))
    else:
        value[key] = copy.deepcopy(STRANGE[int(rng.integers(len(STRANGE)))])
