"""ADE20K scene parsing (SceneParse150): 150 classes, things and stuff.

B. Zhou et al., "Scene Parsing through ADE20K Dataset" (CVPR 2017). In the files 0 is "other" and
the classes are 1 to 150: here 0 becomes 255 and the others 0 to 149.
"""

from pathlib import Path

from kfcn.data.listing import match
from kfcn.data.sets.pairs import FilePairs
from kfcn.labels import IGNORE, Classes, voc_colour

_NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa,
shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp,
bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand,
sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table,
pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower,
book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar,
arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight,
booth, television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator,
ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer,
plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven,
ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen,
blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen,
plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""
NAMES = tuple(" ".join(_NAMES.split()).split(", "))
CLASSES = Classes(NAMES, tuple(voc_colour(index + 1) for index in range(len(NAMES))))
RELABEL = {0: IGNORE} | {index + 1: index for index in range(254)}

_FOLDERS = {"train": "training", "val": "validation"}


class ADE20K(FilePairs):
    """`images/{training,validation}/*.jpg` and `annotations/{training,validation}/*.png`."""

    name = "ade20k"
    layout = (
        "images/ and annotations/ with training/ and validation/, from ADEChallengeData2016.zip"
    )

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = _find(Path(data_dir))
        folder = _FOLDERS[split]
        pairs = match(root / "images" / folder, root / "annotations" / folder)
        super().__init__(split, root, pairs, CLASSES, RELABEL)

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """Those of train and val whose folders exist."""
        root = _find(Path(data_dir))
        return tuple(
            split
            for split, folder in _FOLDERS.items()
            if all((root / kind / folder).is_dir() for kind in ("images", "annotations"))
        )


def _find(root: Path) -> Path:
    inner = root / "ADEChallengeData2016"
    return inner if inner.is_dir() else root
