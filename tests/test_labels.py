"""The colours of classes that a data set gives none."""

import re
from pathlib import Path

import pytest

from kfcn import labels
from kfcn.labels import (
    coloured,
    free_voc_colour,
    is_background,
    tints,
    voc_colour,
    voc_coloured,
)

BLACK, MAROON, GREEN, OLIVE = (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)


def test_the_palette_is_that_of_pascal_voc():
    assert voc_coloured("abcd").palette == (BLACK, MAROON, GREEN, OLIVE)
    assert voc_colour(15) == (192, 128, 128)  # person
    assert len(set(voc_coloured(map(str, range(255))).palette)) == 255


@pytest.mark.parametrize(
    ("given", "palette"),
    [
        ([None, (1, 2, 3), None], (BLACK, (1, 2, 3), GREEN)),  # the class's own
        ([BLACK, BLACK, None], (BLACK, BLACK, GREEN)),
        ([None, BLACK, None], (OLIVE, BLACK, GREEN)),  # the first behind the last class
        ([OLIVE, MAROON, MAROON, BLACK, None], (OLIVE, MAROON, MAROON, BLACK, (0, 0, 128))),
    ],
)
def test_a_class_without_a_colour_gets_one_that_is_free(given, palette):
    assert coloured(map(str, range(len(given))), given).palette == palette


def test_where_only_one_colour_is_left_it_is_found():
    everything = set(map(voc_colour, range(256)))
    for colour in (GREEN, voc_colour(255)):
        assert free_voc_colour(everything - {colour}, 9, 20) == colour


def test_a_single_class_beside_others_gets_the_first_that_is_free():
    assert free_voc_colour([]) == BLACK
    assert free_voc_colour((BLACK, MAROON, OLIVE)) == GREEN


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("background", "cat"), (BLACK, MAROON)),
        (("_Background_", "cat"), (BLACK, MAROON)),
        (("unlabeled", "cat"), (BLACK, MAROON)),
        (("wall", "floor"), (GREEN, MAROON)),  # the first behind the last class
        (("wallpaper background", "floor"), (GREEN, MAROON)),
    ],
)
def test_on_a_photograph_black_is_left_to_the_background(names, shown):
    assert tints(names, voc_coloured(names).palette) == list(shown)


@pytest.mark.parametrize(
    ("name", "background"),
    [
        *(
            (name, True)
            for name in ("background", "_background_", " Void", "unlabelled", "unknown")
        ),
        *((name, False) for name in ("", "avoid", "background wall", "wall")),
    ],
)
def test_the_background_is_known_by_its_name(name, background):
    assert is_background(name) is background


def test_the_page_knows_the_same_background():
    script = Path(__file__).parents[1] / "mobile/kfcn_mobile/web/colours.js"
    (pattern,) = re.findall(r"BACKGROUND = /\^(.*)\$/i;", script.read_text(encoding="utf-8"))
    assert pattern == labels._BACKGROUND.pattern and labels._BACKGROUND.flags & re.IGNORECASE
