"""Objects of a COCO file: the pixels that are meant, or the annotation's number and why not."""

import math
import tracemalloc

import numpy as np
import pytest
from drawn import RING, SIZE, coco, mask

from kfcn.data.formats.coco import Instances
from kfcn.errors import DataError

SIGN = [20, 20, 30, 20, 30, 30, 20, 30]
WALL = [2, 2, 60, 2, 60, 46, 2, 46]


def painted(tmp_path, *annotations, size=SIZE, stored=SIZE, categories=("car",)):
    path = coco(tmp_path / "a.json", ["a.jpg"], [(0, *a) for a in annotations], categories, stored)
    instances = Instances(path)
    labels = {number: number for number in instances.categories}
    return instances.paint(instances.pictures[0], labels, size)


@pytest.mark.parametrize("area", ["stored", "missing", None, 0, "large", math.nan])
def test_which_object_lies_on_top_does_not_depend_on_a_missing_area(tmp_path, area):
    sign, wall = {"segmentation": [SIGN]}, {"segmentation": [WALL]}
    if area == "stored":
        sign["area"], wall["area"] = 100, 2552
    elif area != "missing":
        sign["area"] = wall["area"] = area
    labels = painted(tmp_path, (1, sign), (2, wall), categories=("sign", "wall"))
    share = 100 * np.bincount(labels.ravel()) / labels.size
    assert share.round(3).tolist() == [16.927, 3.255, 79.818]


def test_outlines_in_every_way_they_are_written(tmp_path):
    pairs = [[x, y] for x, y in zip(RING[::2], RING[1::2], strict=True)]
    for written in ([RING], RING, [pairs], pairs):
        found = painted(tmp_path, (1, {"segmentation": written}))
        np.testing.assert_array_equal(found, mask())
    assert (mask() == 1).mean() == pytest.approx(0.18229, abs=5e-6)


def runs(labels):
    """COCO's uncompressed run lengths."""
    flat = labels.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *edges, len(flat)]).tolist()


def test_run_lengths_cover_the_picture_or_are_refused(tmp_path):
    from pycocotools import mask as cocos

    counts = runs(mask())
    packed = cocos.encode(np.asfortranarray(mask()))["counts"].decode()
    for stored in (counts, packed):
        code = {"size": list(SIZE), "counts": stored}
        np.testing.assert_array_equal(painted(tmp_path, (1, {"segmentation": code})), mask())
    total = SIZE[0] * SIZE[1]
    for bad, words in (
        ([740], f"add up to 740; expected {total}"),
        ([*counts, 12], f"expected {total}"),
        ([total + 5, -5], "not a list of counts"),
        ([1e3], "not a list of counts"),
        (packed[:-1], "add up to|end within"),
        ("é", "not packed counts"),
        ("o" * 60, "not packed counts|add up"),
        (None, "not a list of counts"),
    ):
        code = {"size": list(SIZE), "counts": bad}
        with pytest.raises(DataError, match=rf"annotation 0 of a\.jpg cannot be .*: .*({words})"):
            painted(tmp_path, (1, {"segmentation": code}))
    for size in ([48], [64, 48], [-48, 64], [48.0, 64], "48x64", None, [2**40, 2**40]):
        with pytest.raises(DataError, match="run-length mask of"):
            painted(tmp_path, (1, {"segmentation": {"size": size, "counts": counts}}))


def test_many_objects_of_a_large_picture_take_no_mask_each(tmp_path):
    """A hundred of them in 20 megapixels took five seconds."""
    from pycocotools import mask as cocos

    rings = [[x, y, x + 9.5, y, x + 9.5, y + 7, x, y + 4] for x in (3, 90) for y in (5, 1900)]
    wanted = np.zeros((2000, 100), np.uint8)
    for ring in rings:
        wanted |= cocos.decode(cocos.merge(cocos.frPyObjects([ring], 2000, 100)))
    objects = [(1, {"segmentation": [ring]}) for ring in rings]
    found = painted(tmp_path, *objects, size=(2000, 100), stored=(2000, 100))
    np.testing.assert_array_equal(found, wanted)
    assert found.flags.c_contiguous
    tracemalloc.start()
    painted(tmp_path, *objects, size=(2000, 100), stored=(2000, 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * found.size


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, 1e308, 1e5, -1e9, 10**400, "12", None, True, [1, 2, 3]]
)
def test_coordinates_that_are_none_name_the_annotation(tmp_path, bad):
    ring = [*RING[:3], bad, *RING[4:]]
    with pytest.raises(DataError, match=r"annotation 0 of a\.jpg cannot be painted"):
        painted(tmp_path, (1, {"segmentation": [ring]}))


@pytest.mark.parametrize("height", [2e5, -1, "48", 0, 49, 2**31, True, [48], math.nan])
def test_the_size_in_the_file_is_that_of_the_picture(tmp_path, height):
    with pytest.raises(DataError, match=r"height .* of a\.jpg; the image is 48x64"):
        painted(tmp_path, (1, {"segmentation": [RING]}), stored=(height, 64))
    # A size that is missing is the picture's own.
    found = painted(tmp_path, (1, {"segmentation": [RING]}), stored=(None, None))
    np.testing.assert_array_equal(found, mask())


def test_what_is_left_out_is_said_with_its_numbers(tmp_path):
    annotations = [
        (0, 1, {"segmentation": [RING]}),
        (0, 1, {"bbox": [1, 2, 3, 4]}),
        (0, 1, {"segmentation": []}),
        (0, 9, {"segmentation": [RING]}),
        (7, 1, {"segmentation": [RING]}),
        (0, 1, {"segmentation": [[1, 2, 3, 4], RING]}),
        (0, 1, {"segmentation": [[1, 2]]}),
    ]
    instances = Instances(coco(tmp_path / "a.json", ["a.jpg"], annotations))
    assert sorted(instances.notes) == [
        "a.json: 1 annotation of no category in the file left out: number 3",
        "a.json: 1 annotation of no image in the file left out: number 4",
        "a.json: 2 annotations with rings under three points left out: number 5, 6",
        "a.json: 2 annotations without an outline (a box at most) left out: number 1, 2",
    ]
    found = instances.paint(instances.pictures[0], {1: 1}, SIZE)
    np.testing.assert_array_equal(found, mask())


def test_a_file_that_is_none_of_the_kind(tmp_path):
    for content in ('{"images": []}', '{"images": 3, "annotations": [], "categories": []}',
                    '{"images": [{"id": 0}], "annotations": [], "categories": []}',
                    '{"images": [3], "annotations": [], "categories": []}',
                    '{"images": [], "annotations": [{"image_id": {}}], "categories": []}',
    ):  # fmt: skip
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(DataError, match=r"a\.json: is not a COCO instances file"):
            Instances(tmp_path / "a.json")
