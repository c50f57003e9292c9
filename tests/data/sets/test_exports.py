"""Exports of labelme and CVAT as `folder`, and predictions as polygons."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from kfcn import data
from kfcn.data.formats.labelme import TOLERANCE, read_labelme, to_labelme
from kfcn.data.sets.scenes import Scenes
from kfcn.errors import DataError
from kfcn.labels import voc_colour


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def labelme(folder, stem, shapes, height=6, width=8):
    write(folder / f"{stem}.jpg", np.full((height, width, 3), 70))
    write_json(
        folder / f"{stem}.json",
        {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{stem}.jpg",
            "imageData": None, "imageHeight": height, "imageWidth": width,
        },
    )  # fmt: skip


SQUARE = [[1, 1], [4, 1], [4, 4], [1, 4]]


def test_labelme_paints_shapes_in_their_order(tmp_path):
    mask = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [255, 255]], np.uint8)).save(mask, "PNG")
    shapes = [
        shape("tree", SQUARE),
        shape("car", [[2, 2], [3, 3]], "rectangle"),
        shape("road", [[6, 3], [7, 4]], "mask", mask=base64.b64encode(mask.getvalue()).decode()),
    ]
    labelme(tmp_path / "train", "a", shapes)
    labelme(
        tmp_path / "val", "b", [shape("__ignore__", SQUARE), shape("_background_", [[2, 2]] * 3)]
    )
    train, val = (data.load("folder", split, tmp_path) for split in ("train", "val"))
    assert data.splits("folder", tmp_path) == ("train", "val")
    assert train.classes.names == val.classes.names == ("background", "car", "road", "tree")
    assert train.name == "folder"
    assert train[0].labels.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 3, 3, 3, 3, 0, 0, 0],
        [0, 3, 1, 1, 3, 0, 0, 0],
        [0, 3, 1, 1, 3, 0, 2, 0],
        [0, 3, 3, 3, 3, 0, 2, 2],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert val[0].labels[1].tolist() == [0, 255, 255, 255, 255, 0, 0, 0]
    assert val[0].labels[2].tolist() == [0, 255, 0, 255, 255, 0, 0, 0]


def test_labelmes_class_files(tmp_path):
    labelme(tmp_path, "a", [shape("tree", SQUARE)])
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nroad\ntree\n")
    split = next(s for s in ("train", "val") if len(data.load("folder", s, tmp_path)))
    found = data.load("folder", split, tmp_path)
    assert found.classes.names == ("_background_", "road", "tree")
    assert found[0].labels[1, 1] == 2 and found[0].labels[0, 0] == 0
    # Without a background class, what nobody has drawn is not known.
    (tmp_path / "classes.txt").write_text("tree\nroad\n")
    found = data.load("folder", split, tmp_path)
    assert found[0].labels[1, 1] == 0 and found[0].labels[0, 0] == 255
    (tmp_path / "classes.txt").write_text("road\n")
    with pytest.raises(
        DataError, match=r"a\.json: found a shape named 'tree'; expected one of road"
    ):
        data.check(data.load("folder", split, tmp_path))


def test_a_labelme_file_without_its_image_is_named(tmp_path):
    labelme(tmp_path / "train", "a", [])
    (tmp_path / "train/a.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 1 JSON files have no image.*train/a\.json"):
        data.load("folder", "train", tmp_path)


def round_trip(labels, names, tmp_path):
    write_json(tmp_path / "x.json", to_labelme(labels, names, "x.jpg"))
    label_of = {name: index for index, name in enumerate(names)} | {"__ignore__": 255}
    background = label_of.get("background", 255)
    return read_labelme(tmp_path / "x.json", label_of, background)


def test_a_ring_with_a_disc_in_its_hole_comes_back(tmp_path):
    y, x = np.mgrid[:80, :90] - 40
    radius = np.hypot(x, y)
    labels = np.zeros((80, 90), np.uint8)
    labels[radius < 30] = 1
    labels[radius < 18] = 0  # the hole
    labels[radius < 8] = 2
    names = ("background", "ring", "disc")
    content = to_labelme(labels, names, "x.jpg")
    assert [s["label"] for s in content["shapes"]] == ["ring", "background", "disc"]
    assert all(len(s["points"]) < 60 for s in content["shapes"])  # to be dragged by hand
    found = round_trip(labels, names, tmp_path)
    assert (found == labels).mean() > 0.985
    assert found[40, 40] == 2 and found[40, 53] == 0 and found[40, 63] == 1
    # The control: what is left when holes are not drawn.
    assert (np.where(radius < 30, 1, 0) == labels).mean() < 0.9


def test_drawn_scenes_come_back(tmp_path):
    dataset = Scenes("val")
    shares = [
        (round_trip(sample.labels, dataset.classes.names, tmp_path) == sample.labels).mean()
        for sample in (dataset[index] for index in range(12))
    ]
    assert min(shares) > 0.97 and np.mean(shares) > 0.98, shares


def test_rectangles_come_back_exactly(tmp_path):
    labels = np.full((20, 30), 1, np.uint8)
    labels[3:9, 5:17] = 0
    labels[12:20, 20:30] = 255
    np.testing.assert_array_equal(round_trip(labels, ("a", "b"), tmp_path), labels)
    assert TOLERANCE < 1


# CVAT


@pytest.fixture
def cvat_masks(tmp_path):
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:10,20,30::\nroad:128,64,128::\n"
    )
    colours = np.array([(0, 0, 0), (10, 20, 30), (128, 64, 128), (224, 224, 192)], np.uint8)
    indices = np.array([[0, 1], [2, 3]])
    write(tmp_path / "SegmentationClass/a.png", colours[indices])
    palette = Image.fromarray(indices.astype(np.uint8))
    palette.putpalette(colours.tobytes())
    palette.save(tmp_path / "SegmentationClass/b.png")
    for stem in "ab":
        write(tmp_path / f"images/{stem}.jpg", np.zeros((2, 2, 3)))
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    return tmp_path


def test_cvats_masks_are_read_by_their_colours(cvat_masks):
    assert data.splits("folder", cvat_masks) == ("train", "val")
    for split in ("train", "val"):  # RGB, and a palette in the same colours
        found = data.load("folder", split, cvat_masks)
        assert found.classes.names == ("background", "car", "road")
        assert found.classes.palette[1] == (10, 20, 30)
        assert found[0].labels.tolist() == [[0, 1], [2, 255]]
    write(cvat_masks / "SegmentationClass/a.png", np.full((2, 2, 3), 9))
    with pytest.raises(DataError, match=r"a\.png: found the colour \(9, 9, 9\); expected one of"):
        data.check(data.load("folder", "train", cvat_masks))


def test_a_cvat_export_of_one_list_is_divided_by_name(cvat_masks):
    lists = cvat_masks / "ImageSets/Segmentation"
    for name in ("train", "val"):
        (lists / f"{name}.txt").unlink()
    (lists / "default.txt").write_text("a\nb\n")
    parts = [data.load("folder", split, cvat_masks) for split in ("train", "val")]
    assert sum(map(len, parts)) == 2


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("annotations/instances_Train.json", "images/Train"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_a_coco_file_alone_is_divided_whatever_it_is_called(tmp_path, file, folder):
    """Taken as the split train, it had every picture, those of val too."""
    pytest.importorskip("pycocotools")
    images = [{"id": i, "file_name": f"p{i}.png"} for i in range(30)]
    content = {"images": images, "categories": [{"id": 1, "name": "car"}], "annotations": []}
    write_json(tmp_path / file, content)
    for image in images:
        write(tmp_path / folder / image["file_name"], np.zeros((4, 5, 3)))
    assert data.splits("folder", tmp_path) == ("train", "val")
    opened = [data.load("folder", split, tmp_path) for split in ("train", "val")]
    train, val = ({sample.name for sample in split} for split in opened)
    assert len(train | val) == 30
    assert val
    assert not train & val


def test_pictures_that_no_coco_file_names_are_counted(tmp_path):
    """Label Studio exports what is annotated; nobody heard of the others."""
    pytest.importorskip("pycocotools")
    for split in ("train", "val"):
        images = [{"id": 1, "file_name": f"{split}.png"}]
        content = {"images": images, "categories": [{"id": 1, "name": "car"}], "annotations": []}
        write_json(tmp_path / f"annotations/instances_{split}.json", content)
        write(tmp_path / f"images/{split}/{split}.png", np.zeros((2, 5, 3)))
    assert data.load("folder", "train", tmp_path).notes == ()
    for name in ("p8", "p9"):
        write(tmp_path / f"images/val/{name}.png", np.zeros((2, 5, 3)))
    assert data.load("folder", "train", tmp_path).notes == (
        f"{tmp_path}: left out 2 files that no JSON file of the export names: p8, p9",
    )


def test_what_coco_has_as_ignored_is_no_class(tmp_path):
    """It was one that the net learned."""
    pytest.importorskip("pycocotools")
    names = ("__ignore__", "_background_", "car")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {
                "id": n, "image_id": image, "category_id": n,
                "segmentation": [[n, 0, n + 1, 0, n + 1, 2, n, 2]],
            }
            for image in (1, 2) for n in range(3)
        ],
    }  # fmt: skip
    write_json(tmp_path / "result.json", content)
    for image in content["images"]:
        write(tmp_path / "images" / image["file_name"], np.zeros((2, 5, 3)))
    dataset = data.load("folder", "train", tmp_path)
    assert dataset.classes.names == ("background", "car")
    assert dataset[0].labels.tolist() == [[255, 0, 1, 0, 0]] * 2


def test_cvats_coco_export(tmp_path):
    pytest.importorskip("pycocotools")
    images = [{"id": i, "file_name": f"p{i}.jpg", "height": 4, "width": 5} for i in range(1, 31)]
    outline = {"category_id": 4, "area": 4.0, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}
    content = {
        "images": images,
        "categories": [{"id": 4, "name": "car"}, {"id": 2, "name": "road"}],
        "annotations": [{"id": i, "image_id": i, **outline} for i in range(1, 31)],
    }
    write_json(tmp_path / "annotations/instances_default.json", content)
    for image in images:
        write(tmp_path / "images/default" / image["file_name"], np.zeros((4, 5, 3)))
    train, val = (data.load("folder", split, tmp_path) for split in ("train", "val"))
    assert len(train) + len(val) == 30 and 1 <= len(val) <= 8
    assert train.classes.names == ("background", "road", "car")
    assert train.classes.palette[2] == voc_colour(2)
    assert train[0].labels.tolist() == [[0] * 5, [0, 2, 2, 0, 0], [0, 2, 2, 0, 0], [0] * 5]
    (tmp_path / "images/default/p7.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of \d+ images not in .*p7\.jpg"):
        [data.load("folder", split, tmp_path) for split in ("train", "val")]
