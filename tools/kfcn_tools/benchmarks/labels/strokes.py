"""What a person would have touched of a label map with points or scribbles.

Drawn from the full label map by a fixed rule: a connected region of one class of at least `least`
pixels is touched once.

- points: a disc of radius 3 where the region is thickest (one click an object, as Bearman et al.,
  "What's the Point: Semantic Segmentation with Point Supervision", 2016);
- scribbles: a stroke 3 pixels wide along the longest way through the region's skeleton, after
  the region has lost a margin of 3 pixels (a person does not draw along the edge; scribbles as a
  kind of label are from Lin et al., "ScribbleSup", 2016).
"""

import cv2
import numpy as np

from kfcn.labels import IGNORE

RADIUS = 3
KINDS = ("points", "scribbles")


def touched(labels: np.ndarray, kind: str, least: int = 100) -> np.ndarray:
    """What a person would have touched of a label map.

    Args:
        labels: uint8 `(H, W)`; 255 has no label.
        kind: of `KINDS`.
        least: pixels of the smallest region that is touched.

    Returns:
        uint8 `(H, W)`, 255 where nothing is touched.
    """
    found = np.full_like(labels, IGNORE)
    for value in np.unique(labels[labels != IGNORE]).tolist():
        _, parts, figures, _ = cv2.connectedComponentsWithStats((labels == value).astype(np.uint8))
        for number in range(1, len(figures)):
            x, y, width, height, area = figures[number].tolist()
            if area < least:
                continue
            window = slice(y, y + height), slice(x, x + width)
            region = parts[window] == number
            stroke = _point(region) if kind == "points" else _scribble(region)
            found[window][stroke & region] = value
    return found


def _depth(region: np.ndarray) -> np.ndarray:
    """How far the pixels of a region are from what is not in it; beyond the picture is not."""
    return cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]


def _point(region: np.ndarray) -> np.ndarray:
    y, x = np.unravel_index(_depth(region).argmax(), region.shape)
    disc = np.zeros(region.shape, np.uint8)
    cv2.circle(disc, (int(x), int(y)), RADIUS, 1, -1)
    return disc.astype(bool)


def _scribble(region: np.ndarray) -> np.ndarray:
    depth = _depth(region)
    step = max(1, int(depth.max()) // 5)  # thinning a wide region pixel by pixel takes long
    lines = skeleton((depth > RADIUS)[::step, ::step])
    if not lines.any():  # too narrow, or thinned away
        return _point(region)
    way = np.array(longest_way(lines)) * step
    stroke = np.zeros(region.shape, np.uint8)
    cv2.polylines(stroke, [way[:, ::-1].astype(np.int32)], False, 1, RADIUS)
    return stroke.astype(bool)


def skeleton(region: np.ndarray) -> np.ndarray:
    """A region thinned to lines one pixel wide: T. Y. Zhang and C. Y. Suen (1984).

    Args:
        region: bool `(H, W)`.
    """
    thin = np.pad(region, 1).astype(np.uint8)
    while True:
        before = thin.copy()
        for first in (True, False):
            around = _neighbours(thin)
            count = around.sum(0)
            rises = ((around == 0) & (np.roll(around, -1, 0) == 1)).sum(0)
            north, east, south, west = around[0], around[2], around[4], around[6]
            if first:
                open_side = (north * east * south == 0) & (east * south * west == 0)
            else:
                open_side = (north * east * west == 0) & (north * south * west == 0)
            thin[(thin == 1) & (count >= 2) & (count <= 6) & (rises == 1) & open_side] = 0
        if (thin == before).all():
            return thin[1:-1, 1:-1].astype(bool)


_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def _neighbours(picture: np.ndarray) -> np.ndarray:
    """The eight neighbours of each pixel, `(8, H, W)`, clockwise from the one above."""
    return np.stack([np.roll(picture, (-dy, -dx), (0, 1)) for dy, dx in _RING])


def longest_way(lines: np.ndarray) -> list[tuple[int, int]]:
    """The way between two far ends of the largest net of lines, as pixels (row, column).

    From any pixel to the farthest, and from there to the farthest again: exact where the lines
    have no loop.
    """
    _, parts, figures, _ = cv2.connectedComponentsWithStats(lines.astype(np.uint8))
    largest = parts == 1 + figures[1:, cv2.CC_STAT_AREA].argmax()
    pixels = {(row, column) for row, column in np.argwhere(largest).tolist()}
    end = _walk(pixels, min(pixels))[-1]
    return _walk(pixels, end)


def _walk(pixels: set[tuple[int, int]], start: tuple[int, int]) -> list[tuple[int, int]]:
    """A shortest way from a pixel to one of those farthest from it."""
    before: dict[tuple[int, int], tuple[int, int] | None] = {start: None}
    front = [start]
    last = start
    while front:
        last = front[0]
        following = []
        for y, x in front:
            for dy, dx in _RING:
                pixel = (y + dy, x + dx)
                if pixel in pixels and pixel not in before:
                    before[pixel] = (y, x)
                    following.append(pixel)
        front = following
    way: list[tuple[int, int]] = []
    pixel: tuple[int, int] | None = last
    while pixel is not None:
        way.append(pixel)
        pixel = before[pixel]
    return way[::-1]
