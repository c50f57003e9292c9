"""Pictures drawn by the program: the data set that needs no network and no files.

Toys of six shapes lie on meadows, wooden floors, tiles and plaster. Colour, texture, size and
light are drawn alike for all classes and small clutter belongs to the background, so that a
net has to learn the shape. Picture `index` of a split is a function of (seed, split, index).
"""

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kfcn.data.dataset import Dataset, Sample
from kfcn.labels import IGNORE, Classes

CLASSES = Classes(
    names=("background", "disc", "box", "triangle", "ring", "star", "cross"),
    palette=(
        (0, 0, 0),
        (228, 87, 46),
        (23, 190, 187),
        (255, 201, 20),
        (143, 91, 214),
        (61, 220, 120),
        (242, 95, 156),
    ),
)
LENGTHS = {"train": 1000, "val": 100, "test": 100}
SIDE = (112, 168)
"""Smallest and greatest side of a picture, in pixels."""
RADIUS = (22.0, 44.0)
"""Smallest and greatest radius of the circle around an object, in pixels."""
FINE = 3
"""Shapes are drawn this many times larger and averaged, for smooth edges."""


class Scenes(Dataset):
    """Drawn pictures: `LENGTHS[split]` of them, each another for each seed."""

    name = "scenes"
    classes = CLASSES

    def __init__(self, split: str, data_dir: None = None, seed: int = 0):
        self.split = split
        self._seed = seed

    @classmethod
    def splits(cls, data_dir: None = None) -> tuple[str, ...]:
        """train, val and test."""
        return tuple(LENGTHS)

    def __len__(self) -> int:
        return LENGTHS[self.split]

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]  # IndexError beyond the end, as a sequence must
        key = [self._seed, list(LENGTHS).index(self.split), index]
        image, labels = draw(np.random.Generator(np.random.Philox(key)))
        return Sample(image, labels, self.file_name(index))

    def file_name(self, index: int) -> str:
        """Such as `scenes/train/000012`."""
        return f"{self.name}/{self.split}/{range(len(self))[index]:06d}"


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene.

    Returns:
        Image uint8 `(H, W, 3)` and labels uint8 `(H, W)`; one pixel around each object is 255.
    """
    height, width = (int(side) for side in rng.integers(SIDE[0], SIDE[1] + 1, 2))
    towards_light = rng.uniform(math.radians(200), math.radians(340))  # from above, y down
    light = np.array([math.sin(towards_light), math.cos(towards_light)], np.float32)  # y, x
    style = _BACKGROUNDS[rng.integers(len(_BACKGROUNDS))]
    canvas = _clutter(rng, style(rng, height, width))
    labels = np.zeros((height, width), np.uint8)
    placed: list[tuple[float, float, float]] = []
    for _ in range(rng.integers(2, 7)):
        spot = _free_spot(rng, height, width, placed)
        if spot is not None:
            placed.append(spot)
            _add_object(rng, canvas, labels, spot, light)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    canvas *= (1.0 + np.float32(rng.uniform(0.05, 0.25)) * (light[0] * y + light[1] * x))[..., None]
    grain = rng.standard_normal((height, width, 1), np.float32)  # the camera's noise
    canvas += np.float32(rng.uniform(2.0, 5.0)) * grain
    return canvas.clip(0, 255).astype(np.uint8), labels


def _free_spot(rng, height, width, placed):
    """A place (y, x, radius) where neighbours may overlap but never hide each other; or None."""
    for _ in range(12):
        radius = rng.uniform(RADIUS[0], min(RADIUS[1], 0.3 * min(height, width)))
        y = rng.uniform(0.8 * radius, height - 0.8 * radius)
        x = rng.uniform(0.8 * radius, width - 0.8 * radius)
        if all(math.hypot(y - v, x - u) > 0.72 * (radius + r) for v, u, r in placed):
            return y, x, radius
    return None


def _add_object(rng, canvas, labels, spot, light):
    """Paints one object with its shadow over `canvas` and `labels`, in place."""
    y, x, radius = spot
    index = int(rng.integers(1, len(CLASSES)))
    reach = math.ceil(radius * 1.5) + 2  # the shadow reaches beyond the object
    mask = _shape(rng, CLASSES.names[index], radius, reach)
    # The part of the (2 reach)^2 patch that lies inside of the picture.
    top, left = round(y) - reach, round(x) - reach
    here = tuple(
        slice(max(start, 0), min(start + 2 * reach, limit))
        for start, limit in zip((top, left), labels.shape, strict=True)
    )
    patch = tuple(
        slice(part.start - start, part.stop - start)
        for part, start in zip(here, (top, left), strict=True)
    )
    soft = _blurred(mask, 0.12 * radius)
    depth = rng.uniform(0.18, 0.4) * radius
    down, right = (round(float(-step * depth)) for step in light)
    shadow = np.roll(soft, (down, right), (0, 1))
    canvas[here] *= 1.0 - rng.uniform(0.35, 0.6) * shadow[patch][..., None]

    # Rounded like a pillow: where the blurred mask rises against the light, it is darker.
    rise_y, rise_x = np.gradient(soft)
    shade = 1.0 - rng.uniform(0.35, 0.75) * 0.35 * radius * (rise_y * light[0] + rise_x * light[1])
    colour = _paint(rng, 2 * reach) * shade[..., None]
    alpha = mask[patch][..., None]
    canvas[here] += alpha * (colour[patch] - canvas[here])

    inside = (mask > 0.5)[patch]
    grown = inside.copy()
    grown[1:] |= inside[:-1]
    grown[:-1] |= inside[1:]
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    labels[here][grown] = IGNORE
    labels[here][inside] = index


def _shape(rng, name, radius, reach):
    """Coverage of an object in a patch of `2 * reach` pixels a side: float32, 0 to 1."""
    side = 2 * reach * FINE
    fine = Image.new("L", (side, side))
    pen = ImageDraw.Draw(fine)
    centre, outer = side / 2, radius * FINE
    turn = -math.pi / 2 + rng.uniform(-0.4, 0.4)  # things stand more or less upright

    def polygon(points):
        """Points (radius, angle), the angle in turns."""
        angles = [(r, turn + 2.0 * math.pi * a) for r, a in points]
        pen.polygon(
            [
                (centre + outer * r * math.cos(a), centre + outer * r * math.sin(a))
                for r, a in angles
            ],
            fill=255,
        )

    def circle(r, fill):
        box = (centre - outer * r, centre - outer * r, centre + outer * r, centre + outer * r)
        pen.ellipse(box, fill=fill)

    if name == "disc":
        circle(0.88, 255)
    elif name == "ring":
        circle(0.95, 255)
        circle(0.95 * rng.uniform(0.48, 0.6), 0)
    elif name == "box":
        corner = rng.uniform(0.095, 0.125)  # a square has 0.125
        polygon([(1.0, corner), (1.0, 0.5 - corner), (1.0, 0.5 + corner), (1.0, -corner)])
    elif name == "triangle":
        polygon([(1.0, i / 3 + rng.uniform(-0.025, 0.025)) for i in range(3)])
    elif name == "star":
        inner = rng.uniform(0.42, 0.5)
        polygon([(1.0 if i % 2 == 0 else inner, i / 10) for i in range(10)])
    else:  # a cross of two bars, of which each is `arm` wide on both sides of its axis
        arm = rng.uniform(0.27, 0.34)
        tip = math.asin(arm) / (2.0 * math.pi)
        notch = (arm * math.sqrt(2.0), 0.125)
        polygon([(r, a + i / 4) for i in range(4) for r, a in ((1.0, -tip), (1.0, tip), notch)])
    return np.asarray(fine.reduce(FINE), np.float32) / 255.0


def _paint(rng, side):
    """The coloured surface of an object, float32 `(side, side, 3)`."""
    base = _colour(rng, (0.3, 0.95), (0.55, 1.0))
    other = np.clip(base * rng.uniform(0.55, 0.8) + rng.uniform(0, 30, 3), 0, 255)
    if rng.random() < 0.35:
        other = _colour(rng, (0.1, 0.9), (0.5, 1.0))
    y, x = np.mgrid[:side, :side].astype(np.float32)
    turn, period = rng.uniform(0, math.pi), rng.uniform(5.0, 11.0)
    u = (x * math.cos(turn) + y * math.sin(turn)) * (2 * math.pi / period)
    v = (y * math.cos(turn) - x * math.sin(turn)) * (2 * math.pi / period)
    kind = rng.integers(4)
    if kind == 0:  # plain
        mix = np.zeros_like(x)
    elif kind == 1:  # stripes
        mix = np.clip(2.0 * np.sin(u) + 0.5, 0, 1)
    elif kind == 2:  # dots
        mix = np.clip(3.0 * np.sin(u) * np.sin(v) - 0.6, 0, 1)
    else:  # mottled
        mix = np.clip(0.5 + 0.5 * _noise(rng, side, side, 6), 0, 1)
    return base + (other - base) * mix[..., None].astype(np.float32)


def _meadow(rng, height, width):
    """Sky over a wavy horizon and ground with grass or sand."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = _colour(rng, (0.25, 0.6), (0.7, 1.0), hue=(0.5, 0.65))
    sky = sky + (np.float32(235) - sky) * (0.9 * y)
    sky = sky + 18 * np.maximum(_noise(rng, height, width, 24, 10), 0)[..., None]
    ground = _colour(rng, (0.25, 0.6), (0.4, 0.75), hue=(0.08, 0.38))
    ground = ground * (0.65 + 0.55 * y)
    ground = (
        ground + 9 * (_noise(rng, height, width, 3) + _noise(rng, height, width, 14))[..., None]
    )
    x = np.linspace(0, 1, width, dtype=np.float32)
    horizon = rng.uniform(0.25, 0.5) + sum(
        rng.uniform(0.01, 0.05) / k * np.sin(2 * math.pi * (k * x + rng.random()))
        for k in (1, 2, 3)
    )
    blend = np.clip((y[..., 0] - horizon) * height, 0, 1)[..., None]
    return sky + (ground - sky) * blend


def _planks(rng, height, width):
    """A wooden floor."""
    base = _colour(rng, (0.25, 0.6), (0.45, 0.85), hue=(0.04, 0.12))
    board = int(rng.integers(16, 30))
    rows = np.arange(height) // board
    tone = rng.uniform(0.8, 1.1, rows[-1] + 1)[rows].astype(np.float32)[:, None]
    grain = 0.05 * _noise(rng, height, width, 2, 18) + 0.05 * _noise(rng, height, width, 5, 40)
    gap = np.where(np.arange(height) % board == 0, 0.6, 1.0).astype(np.float32)[:, None]
    return base * ((tone + grain) * gap)[..., None]


def _tiles(rng, height, width):
    """Tiles in two tones with joints, at any angle."""
    light_tone = _colour(rng, (0.05, 0.35), (0.65, 0.95))
    dark_tone = light_tone * rng.uniform(0.7, 0.92)
    turn, size = rng.uniform(0, math.pi / 2), rng.uniform(16, 34)
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(size)
    u = x * math.cos(turn) + y * math.sin(turn)
    v = y * math.cos(turn) - x * math.sin(turn)
    odd = ((np.floor(u) + np.floor(v)) % 2)[..., None]
    joint = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v))) * size < 0.8
    floor = light_tone + (dark_tone - light_tone) * odd
    floor = floor * np.where(joint, 0.75, 1.0)[..., None]
    return floor + 5 * _noise(rng, height, width, 8)[..., None]


def _plaster(rng, height, width):
    """A wall of soft clouds of two colours."""
    one = _colour(rng, (0.1, 0.5), (0.4, 0.95))
    two = np.clip(one + rng.uniform(-50, 50, 3), 0, 255)
    mix = 0.5 + 0.35 * _noise(rng, height, width, 26) + 0.15 * _noise(rng, height, width, 7)
    return (
        one + (two - one) * mix.clip(0, 1)[..., None] + 5 * _noise(rng, height, width, 2)[..., None]
    )


_BACKGROUNDS = (_meadow, _planks, _tiles, _plaster)


def _clutter(rng, background):
    """Pebbles and scratches, which are background however gaudy they are."""
    image = Image.fromarray(background.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    width, height = image.size
    for _ in range(rng.integers(0, 9)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        colour = tuple(int(c) for c in _colour(rng, (0.1, 0.9), (0.35, 1.0)))
        if rng.random() < 0.6:
            a, b = rng.uniform(1.5, 4.0, 2)
            pen.ellipse((x - a + 1, y - b + 1.5, x + a + 1, y + b + 1.5), fill=(50, 45, 45))
            pen.ellipse((x - a, y - b, x + a, y + b), fill=colour)
        else:
            dx, dy = rng.uniform(-22, 22, 2)
            pen.line((x, y, x + dx, y + dy), fill=colour, width=int(rng.integers(1, 3)))
    return np.array(image, np.float32)


def _colour(rng, saturation, value, hue=(0.0, 1.0)):
    """A random colour in these ranges of hue, saturation and value: float32 `(3,)`, 0 to 255."""
    rgb = colorsys.hsv_to_rgb(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value))
    return 255.0 * np.array(rgb, np.float32)


def _noise(rng, height, width, grain, grain_x=None):
    """Smooth noise with a standard deviation near 1 and blobs of `grain` pixels."""
    rows, columns = height // grain + 2, width // (grain_x or grain) + 2
    coarse = rng.standard_normal((rows, columns), np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _blurred(mask, radius):
    blurred = Image.fromarray((255 * mask).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(radius)
    )
    return np.asarray(blurred, np.float32) / 255.0
