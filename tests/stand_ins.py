"""What the commands of the documentation name, drawn in the layout of the real thing."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from kfcn.data.formats.labelme import to_labelme
from kfcn.data.sets.coco import VOC_IDS

CAMVID_CLASSES = 12
"""Label values of the files: 11 classes and void."""


def write_stand_ins(folder: Path, pairs: Path) -> None:
    """The data sets and pictures that the pages name, under the names that they use."""
    shutil.copytree(pairs, folder / "my-data")
    write_labelme(folder / "pictures", folder / "labelled", pairs)
    write_camvid(folder / "CamVid")
    write_voc(folder / "VOCdevkit")
    write_coco(folder / "coco")
    for name in ("holiday", "photographs"):
        (folder / name).mkdir()
        _image(folder / name / "beach.jpg", 70, 50, seed=1)
    _image(folder / "cat.jpg", 70, 90, seed=2)
    _image(folder / "photo.jpg", 70, 90, seed=3)


def write_labelme(pictures: Path, labelled: Path, pairs: Path) -> None:
    """The drawn pairs as photographs in one folder; in another, labelme's files of some of them."""
    pictures.mkdir()
    labelled.mkdir()
    names = ("background", "square", "disc")
    (labelled / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    for split in ("train", "val"):
        for file in sorted((pairs / "images" / split).iterdir()):
            shutil.copy(file, pictures)
            if split == "train":
                labels = np.array(Image.open(pairs / "labels" / split / file.name))
                content = to_labelme(labels, names, f"../{pictures.name}/{file.name}")
                (labelled / f"{file.stem}.json").write_text(json.dumps(content))


def write_camvid(root: Path, count: int = 6) -> None:
    """The folder of the SegNet tutorial; frame names as `seq05VD` number their drives."""
    for split in ("train", "val", "test"):
        for number in range(count):
            name = f"0016E5_{number:05d}.png"
            _image(root / split / name, 72, 96, seed=number)
            _labels(root / f"{split}annot" / name, 72, 96, CAMVID_CLASSES, seed=number)


def write_voc(devkit: Path, count: int = 6) -> None:
    """VOC 2012, VOC 2011's list, and SBD beside them."""
    import scipy.io

    root = devkit / "VOC2012"
    names = [f"2008_{number:06d}" for number in range(3 * count)]
    train, val, sbd = names[:count], names[count : 2 * count], names[2 * count :]
    for seed, name in enumerate(names):
        _image(root / f"JPEGImages/{name}.jpg", 72, 96, seed=seed)
    for seed, name in enumerate(train + val):
        _labels(root / f"SegmentationClass/{name}.png", 72, 96, 21, seed=seed)
    lists = root / "ImageSets/Segmentation"
    _list(lists / "train.txt", train)
    _list(lists / "val.txt", val)
    _list(devkit / "VOC2011/ImageSets/Segmentation/val.txt", val)
    extra = devkit / "benchmark_RELEASE/dataset"
    (extra / "cls").mkdir(parents=True)
    for seed, name in enumerate(sbd):
        labels = {"Segmentation": _map(72, 96, 21, seed), "Boundaries": np.zeros((20, 1), object)}
        scipy.io.savemat(extra / f"cls/{name}.mat", {"GTcls": labels})
    _list(extra / "train.txt", sbd[:-1])
    _list(extra / "val.txt", sbd[-1:])


def write_coco(root: Path, count: int = 6) -> None:
    """COCO 2017: an object of one of VOC's classes in each picture, outlined by a rectangle."""
    for split in ("train", "val"):
        pictures, objects = [], []
        for number in range(count):
            name = f"{number:012d}.jpg"
            _image(root / f"{split}2017" / name, 72, 96, seed=number)
            pictures.append({"id": number, "file_name": name, "height": 72, "width": 96})
            outline = [[10, 10, 80, 10, 80, 60, 10, 60]]
            objects.append(
                {"id": number + 1, "image_id": number, "category_id": VOC_IDS[number],
                 "segmentation": outline, "area": 3500, "iscrowd": 0, "bbox": [10, 10, 70, 50]}
            )  # fmt: skip
        content = {
            "images": pictures,
            "annotations": objects,
            "categories": [{"id": i, "name": f"class {i}"} for i in sorted(VOC_IDS)],
        }
        file = root / f"annotations/instances_{split}2017.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))


def _map(height: int, width: int, classes: int, seed: int) -> np.ndarray:
    """Vertical stripes of all classes, beginning with another one for each seed."""
    stripes = (np.arange(width) * classes // width + seed) % classes
    return np.broadcast_to(stripes, (height, width)).astype(np.uint8)


def _labels(path: Path, height: int, width: int, classes: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_map(height, width, classes, seed)).save(path)


def _image(path: Path, height: int, width: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)


def _list(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))
