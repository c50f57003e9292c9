"""Damaged files of annotations, classes and lists."""

import contextlib
import json
from pathlib import Path

import numpy as np
from drawn import CORNERS, RING, SIZE, mask, shape
from mutations import damaged_json, damaged_text

from subjects.outcomes import READ, told
from subjects.pictures import encoded


def labelme(rng: np.random.Generator, folder: Path) -> str:
    import base64

    from kfcn.data.formats.labelme import embedded_image, read_labelme, shape_names
    from kfcn.errors import KfcnError

    stored = base64.b64encode(encoded(mask()[10:30, 12:40] * 255, "PNG")).decode()
    kinds = ("polygon", "rectangle", "rotation", "quadrilateral", "linestrip", "points")
    shapes = [shape("car", CORNERS, str(rng.choice(kinds)))]
    shapes += [
        shape("tree", [[10, 10], [30, 30]], str(rng.choice(["line", "rectangle", "circle"]))),
        shape("tree", [[12.4, 10.2]], str(rng.choice(["point", "mask"])), mask=stored),
    ]
    content = {
        "version": "5.5.0", "shapes": shapes, "imagePath": "a.jpg", "imageData": None,
        "imageHeight": SIZE[0], "imageWidth": SIZE[1],
    }  # fmt: skip
    path = folder / "a.json"
    label_of = {"background": 0, "car": 1, "tree": 2, "__ignore__": 255}
    path.write_bytes(json.dumps(content).encode())
    sound = read_labelme(path, label_of, 0, SIZE)
    assert {0, 1} <= set(np.unique(sound).tolist()) <= {0, 1, 2}
    path.write_bytes(damaged_json(rng, content))
    for read in (shape_names, embedded_image):
        with contextlib.suppress(KfcnError):
            read(path)
    try:
        found = read_labelme(path, label_of, 0, SIZE)
    except KfcnError as error:
        return told(error)
    assert found.dtype == np.uint8 and found.shape == SIZE
    assert set(np.unique(found).tolist()) <= {0, 1, 2, 255}
    np.testing.assert_array_equal(read_labelme(path, label_of, 0, SIZE), found)
    return READ


def coco(rng: np.random.Generator, folder: Path) -> str:
    from kfcn.data.formats.coco import Instances
    from kfcn.errors import KfcnError

    flat = mask().T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, len(flat)]).tolist()
    shapes = [[RING], {"size": list(SIZE), "counts": runs}, [[2, 2, 60, 2, 60, 46, 2, 46]]]
    content = {
        "images": [{"id": 0, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [
            {"id": i, "image_id": 0, "category_id": i + 1, "segmentation": outline, "iscrowd": 0,
             "area": 600 + i, "bbox": [1, 2, 3, 4]}
            for i, outline in enumerate(shapes)
        ],
        "categories": [
            {"id": i, "name": name, "supercategory": "thing"}
            for i, name in enumerate(("sign", "car", "wall"), start=1)
        ],
    }  # fmt: skip
    path = folder / "a.json"
    path.write_bytes(damaged_json(rng, content))
    try:
        instances = Instances(path)
        assert all(isinstance(note, str) and "\n" not in note for note in instances.notes)
        found = []
        for entry in instances.pictures:
            labels = {number: i % 255 for i, number in enumerate(instances.categories, start=1)}
            found.append(instances.paint(entry, labels, SIZE))
            np.testing.assert_array_equal(instances.paint(entry, labels, SIZE), found[-1])
    except KfcnError as error:
        return told(error)
    for labels in found:
        assert labels.dtype == np.uint8 and labels.shape == SIZE and labels.max() <= 3
    return READ


TEXTS = {
    "classes.txt": "background #000000\nred car  #ff0080\nroad 128 64 128\nTür = 255\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:250,50,83::\n",
    "_classes.csv": "Pixel Value, Class\n0, background\n1, car\n7, road\n",
    "train.txt": '"my image 1"\nIMG-3 1\nsub\\IMG-4.png\nStraße\n',
}


def text(rng: np.random.Generator, folder: Path) -> str:
    from kfcn.data.formats.classes_txt import read_class_file, read_classes_csv
    from kfcn.data.formats.labelmap import read_labelmap
    from kfcn.data.formats.lists import read_names
    from kfcn.errors import KfcnError

    name = str(rng.choice(list(TEXTS)))
    path = folder / name
    path.write_bytes(damaged_text(rng, TEXTS[name]))
    try:
        if name == "train.txt":
            names = read_names(path, {"my image 1", "IMG-3", "sub/IMG-4", "Straße"})
        elif name == "labelmap.txt":
            names = read_labelmap(path).names
        else:
            found = read_classes_csv(path) if name == "_classes.csv" else read_class_file(path)
            names = found.classes.names
            assert len(set(found.stored)) == len(names) == len(found.classes.palette)
            assert all(0 <= value <= 255 for value in found.stored)
    except KfcnError as error:
        return told(error)
    assert names and all(names) and not any("\ufeff" in name[:1] for name in names)
    assert name == "train.txt" or len(set(names)) == len(names) <= 255
    return READ
