"""Small drawn files as people have them: pictures, masks, and what annotation programs export."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)
BOX = (10, 12, 30, 40)  # top, left, bottom, right
SHARE = 20 * 28 / (48 * 64)  # of the box, 18.229 %
RING = [12, 10, 40, 10, 40, 30, 12, 30]
CORNERS = [[12, 10], [40, 10], [40, 30], [12, 30]]


def picture(seed=0, size=SIZE):
    """A bright box on dark noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    array = rng.integers(60, 90, (*size, 3), dtype=np.uint8)
    top, left, bottom, right = BOX
    box = array[top:bottom, left:right]
    box[...] = rng.integers(180, 220, box.shape)
    return array


def mask(value=1, size=SIZE):
    """The box as labels, uint8 (H, W)."""
    array = np.zeros(size, np.uint8)
    top, left, bottom, right = BOX
    array[top:bottom, left:right] = value
    return array


def save(path, array, **options):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def write(path, text, encoding="utf-8"):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def folder(root, masks, classes="background\nlesion\n", split="train"):
    """A split of a data set `folder`: a picture for each mask, uint8 (H, W)."""
    for index, array in enumerate(masks):
        save(root / f"images/{split}/p{index}.png", picture(index))
        save(root / f"labels/{split}/p{index}.png", array)
    write(root / "classes.txt", classes)
    return root


def write_json(path, value):
    return write(path, json.dumps(value))


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def labelme(path, image, shapes, size=SIZE, **more):
    content = {
        "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None,
        "imageHeight": size[0], "imageWidth": size[1],
    }  # fmt: skip
    return write_json(path, content | more)


def coco(path, names, annotations, categories=("car",), size=SIZE, first=1):
    """A COCO file of pictures `names`; each annotation is `(picture, category, fields)`."""
    images = [
        {"id": i, "file_name": name, "height": size[0], "width": size[1]}
        for i, name in enumerate(names)
    ]
    items = [
        {"id": i, "image_id": image, "category_id": category, "iscrowd": 0, **fields}
        for i, (image, category, fields) in enumerate(annotations)
    ]
    rows = [{"id": i, "name": name} for i, name in enumerate(categories, start=first)]
    return write_json(path, {"images": images, "annotations": items, "categories": rows})


def cvat(path, pictures, labels=("car",), size=SIZE, **more):
    """An `annotations.xml` of CVAT: name -> its shapes as XML; `more` is a picture's subset."""
    names = "".join(f"<label><name>{name}</name><color>#0000{60 + i}</color></label>"
                    for i, name in enumerate(labels))  # fmt: skip
    images = "".join(
        f'<image id="{i}" name="{name}" subset="{more.get(name, "")}" '
        f'width="{size[1]}" height="{size[0]}">{shapes}</image>'
        for i, (name, shapes) in enumerate(pictures.items())
    )
    head = '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>'
    meta = f"<meta><task><labels>{names}</labels></task></meta>"
    return write(path, f"{head}{meta}{images}</annotations>")


def shares(dataset):
    """Share of each class in the labelled pixels, in percent with three digits."""
    from kfcn.data import check

    pixels = check(dataset, training=False).pixels
    return [round(100 * float(part), 3) for part in pixels / pixels.sum()]
