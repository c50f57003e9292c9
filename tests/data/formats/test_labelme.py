"""labelme's shapes: the pixels that labelme itself paints, or an error with file and shape."""

import base64
import io
import json

import numpy as np
import pytest
from drawn import CORNERS, SIZE, labelme, shape
from PIL import Image, ImageDraw

from kfcn.data.formats.labelme import read_labelme
from kfcn.errors import DataError

LABEL_OF = {"background": 0, "car": 1, "crack": 2}


def painted(tmp_path, *shapes, size=SIZE, **more):
    path = labelme(tmp_path / "a.json", "a.jpg", shapes, size, **more)
    return read_labelme(path, LABEL_OF, 0, size)


def as_labelme_does(points, kind, size=SIZE):
    """`labelme.utils.shape_to_mask` of 5.5, for the kinds that the examples use."""
    image = Image.new("1", size[::-1])
    draw, xy = ImageDraw.Draw(image), [tuple(point) for point in points]
    if kind in ("line", "linestrip"):
        draw.line(xy=xy, fill=1, width=10)
    elif kind == "point":
        ((x, y),) = xy
        draw.ellipse([(x - 5, y - 5), (x + 5, y + 5)], outline=1, fill=1)
    else:
        draw.polygon(xy=xy, outline=1, fill=1)
    return np.array(image)


@pytest.mark.parametrize(
    ("kind", "points", "pixels"),
    [
        ("linestrip", [[5, 5], [30, 20], [60, 40]], None),
        ("line", [[5, 40], [60, 10]], None),
        ("point", [[40, 20]], 97),  # a disc of radius 5 on the grid
        ("polygon", CORNERS, 29 * 21),
    ],
)
def test_shapes_are_painted_as_labelme_paints_them(tmp_path, kind, points, pixels):
    found = painted(tmp_path, shape("crack", points, kind)) == 2
    np.testing.assert_array_equal(found, as_labelme_does(points, kind))
    assert found.sum() == (pixels or found.sum()) > 50


def test_a_line_is_ten_pixels_wide(tmp_path):
    found = painted(tmp_path, shape("crack", [[0, 20], [63, 20]], "line")) == 2
    assert found.sum(axis=0)[10:50].tolist() == [10] * 40


@pytest.mark.parametrize("kind", ["rectangle", "rotation", "oriented_rectangle", "quadrilateral"])
def test_four_corners_are_a_polygon(tmp_path, kind):
    # 19.824 % of the picture, as the rectangle of two points.
    expected = painted(tmp_path, shape("car", [[12, 10], [40, 30]], "rectangle"))
    assert (expected == 1).mean() == pytest.approx(0.19824, abs=5e-6)
    np.testing.assert_array_equal(painted(tmp_path, shape("car", CORNERS, kind)), expected)
    turned = [[20, 5], [35, 20], [20, 35], [5, 20]]
    diamond = painted(tmp_path, shape("car", turned, kind)) == 1
    np.testing.assert_array_equal(diamond, as_labelme_does(turned, "polygon"))


def test_several_points_of_one_name(tmp_path):
    several = painted(tmp_path, shape("crack", [[10, 10], [50, 30]], "points"))
    apart = [shape("crack", [point], "point") for point in ([10, 10], [50, 30])]
    np.testing.assert_array_equal(several, painted(tmp_path, *apart))


@pytest.mark.parametrize(("corner", "pixel"), [(3.5, 4), (3.49, 3), (-0.2, 0)])
def test_a_masks_corner_is_the_nearest_pixel(tmp_path, corner, pixel):
    content = io.BytesIO()
    Image.fromarray(np.full((2, 3), 255, np.uint8)).save(content, "PNG")
    stored = base64.b64encode(content.getvalue()).decode()
    found = painted(tmp_path, shape("car", [[corner, corner]], "mask", mask=stored))
    rows, columns = np.nonzero(found)
    assert (rows.min(), columns.min(), len(rows)) == (pixel, pixel, 6)


WRITTEN = {  # labelme writes zeros and ones in 8 bits; other programs write whatever they like
    "labelme's": lambda mask: Image.fromarray(mask.astype(np.uint8)),
    "white": lambda mask: Image.fromarray(mask.astype(np.uint8) * 255),
    "one bit": Image.fromarray,
    "16 bits": lambda mask: Image.fromarray(mask.astype(np.uint16)),
    "colours": lambda mask: Image.fromarray(mask.astype(np.uint8)).convert("RGBA"),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_all_but_zero_of_a_mask_is_inside(tmp_path, written):
    mask = np.random.default_rng(0).random((20, 30)) < 0.4
    content = io.BytesIO()
    WRITTEN[written](mask).save(content, "PNG")
    stored = base64.b64encode(content.getvalue()).decode()
    found = painted(tmp_path, shape("car", [[5, 9], [34, 28]], "mask", mask=stored))
    expected = np.zeros(SIZE, np.uint8)
    expected[9:29, 5:35] = mask
    np.testing.assert_array_equal(found, expected)


BAD = [
    (shape("car", CORNERS, "hexagon"), r"shape 1 \('car', 'hexagon'\).*unknown type 'hexagon'"),
    (shape("car", CORNERS, ["polygon"]), "unknown type"),
    (shape("car", CORNERS[:2]), r"2 points; expected 3 or more"),
    (shape("car", CORNERS[:3], "rotation"), r"3 points; expected 4"),
    (shape("car", CORNERS[:3], "rectangle"), r"3 points; expected 2 or 4"),
    (shape("car", [[1, 1]], "circle"), r"1 point; expected 2"),
    (shape("car", None), "not a list of points"),
    (shape("car", [[1, 2, 3]] * 3), r"found the point \[1, 2, 3\]; expected \[x, y\]"),
    (shape("car", [["1", "2"]] * 3), "expected"),
    (shape("car", [[True, 2]] * 3), "expected"),
    (shape("car", [[float("nan"), 2]] * 3), "far outside"),
    (shape("car", [[1e30, 2], [3, 4], [5, 6]]), "far outside"),
    (shape("car", [[-190, 1], [190, 1]], "circle"), "a radius of 380 pixels"),
    (shape("car", [[1, 1]], "mask"), "a mask without its picture"),
    (shape("car", [[1, 1]], "mask", mask="AAAA"), "cannot be painted"),
    (shape("lorry", CORNERS), "found a shape named 'lorry'; expected one of background, car"),
]


@pytest.mark.parametrize(("bad", "words"), BAD)
def test_any_other_shape_is_an_error_that_names_it(tmp_path, bad, words):
    with pytest.raises(DataError, match=rf"a\.json: .*({words})") as error:
        painted(tmp_path, bad)
    assert "\n" not in str(error.value)


def test_the_size_is_the_pictures_own(tmp_path):
    square = shape("car", CORNERS)
    expected = painted(tmp_path, square)
    without = painted(tmp_path, square, imageHeight=None, imageWidth=None)
    np.testing.assert_array_equal(without, expected)
    with pytest.raises(DataError, match=r"imageHeight 47 and imageWidth 64; the image is 48x64"):
        painted(tmp_path, square, imageHeight=47)
    for wrong in ("48", True, 48.0, [48]):
        with pytest.raises(DataError, match="expected two numbers of pixels"):
            painted(tmp_path, square, imageHeight=wrong)
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"shapes": [square], "imageHeight": 2**31, "imageWidth": 2**31}))
    with pytest.raises(DataError, match=r"would take .* GiB"):
        read_labelme(path, LABEL_OF, 0)


def test_json_that_is_none(tmp_path):
    path = tmp_path / "a.json"
    for content, words in (
        (b"[" * 200_000 + b"]" * 200_000, "nested too deep"),
        (b'{"shapes": [', "cannot be read as JSON"),
        (b"[1, 2]", "no object at the top"),
        ("\ufeff{}".encode("utf-16"), "UTF-16"),
        (b'{"shapes": [{"label": 3}]}', "expected `shapes`, each with a `label`"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.json: .*{words}"):
            read_labelme(path, LABEL_OF, 0, SIZE)
