"""What is damaged, how it is read, and what must hold of everything that is not refused.

A subject is called with a random generator and an empty folder. It writes one damaged file, reads
it and returns whether it was read or refused; an AssertionError says that it was read wrongly.
"""

import contextlib
import functools
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
from drawn import CORNERS, RING, SIZE, mask, picture, shape
from mutations import damaged, damaged_json, damaged_text
from PIL import Image

READ, REFUSED = "read", "refused"


def told(error: Exception) -> str:
    """The outcome of an error that is meant for people, once it is one line."""
    text = str(error)
    assert text and "\n" not in text and len(text) < 1500, f"not one line: {text[:300]!r}"
    assert "Traceback" not in text
    return REFUSED


def encoded(array: np.ndarray, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(content, kind, **options)
    return content.getvalue()


@functools.cache
def pictures() -> list[bytes]:
    array, exif = picture(), Image.Exif()
    exif[0x0112] = 6
    deep = array[..., 0].astype(np.uint16) * 16
    pages = {"save_all": True, "append_images": [Image.fromarray(array)]}
    kinds = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "TGA", "JPEG2000")
    return [
        *(encoded(array, kind) for kind in kinds),
        encoded(array, "JPEG", progressive=True, exif=exif),
        encoded(array, "PNG", exif=exif),
        encoded(deep, "PNG"),
        encoded(deep, "TIFF"),
        encoded(array, "TIFF", **pages),
        encoded(np.dstack([array, array[..., 0]]), "PNG"),
    ]


def image(rng: np.random.Generator, folder: Path) -> str:
    from kfcn.data.formats.images import count_pages, read_head, read_image, value_range
    from kfcn.errors import KfcnError

    content = damaged(rng, pictures()[int(rng.integers(len(pictures())))])
    outcome = REFUSED
    for read in (count_pages, value_range):
        with contextlib.suppress(KfcnError):
            read(content, "x.png")
    try:
        found = read_image(content, "x.png")
        assert found.dtype == np.uint8 and found.shape[2:] == (3,), found.shape
        assert found.flags.c_contiguous or found.base is not None
        assert read_head(content, "x.png").size == found.shape[:2]
        np.testing.assert_array_equal(read_image(content, "x.png"), found)
        outcome = READ
    except KfcnError as error:
        told(error)
    return outcome


@functools.cache
def masks() -> list[tuple[bytes, np.ndarray]]:
    rng = np.random.default_rng(1)
    labels = mask(3)
    labels[::7, ::5] = rng.integers(0, 4, labels[::7, ::5].shape)
    palette = Image.fromarray(labels)
    palette.putpalette([(7 * i) % 256 for i in range(768)])
    black = mask()
    return [
        (encoded(labels, "PNG"), labels),
        (encoded(palette, "PNG"), labels),
        (encoded(palette, "PNG", bits=2), labels),
        (encoded(labels.astype(np.uint16), "PNG"), labels),
        (encoded(np.repeat(labels[..., None], 3, axis=2), "PNG"), labels),
        (encoded(Image.fromarray(black * 255).convert("1"), "PNG"), black),
        (encoded(labels, "TIFF"), labels),
        (encoded(labels, "BMP"), labels),
    ]


def label_map(rng: np.random.Generator, folder: Path) -> str:
    from kfcn.data.formats.label_maps import read_labels
    from kfcn.errors import KfcnError

    sound, labels = masks()[int(rng.integers(len(masks())))]
    np.testing.assert_array_equal(read_labels(sound, "x.png"), labels)
    content = damaged(rng, sound)
    try:
        found = read_labels(content, "x.png")
    except KfcnError as error:
        return told(error)
    assert found.dtype == np.uint8 and found.ndim == 2
    if content.startswith(b"\x89PNG\r\n\x1a\n"):  # its checksums let nothing else pass
        np.testing.assert_array_equal(found, labels)
    return READ


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


def card(rng: np.random.Generator, folder: Path) -> str:
    """`kfcn.json` of prepared data."""
    from kfcn.data.sets.prepared import CARD, Prepared
    from kfcn.errors import KfcnError

    counts = {"pixels": [5, 6], "image_pixels": [9, 9], "ignored": 1, "images": 2, "notes": []}
    content = {
        "source": "folder", "stretch": [0, 4095], "classes": ["a", "b"],
        "palette": [[0, 0, 0], [1, 2, 3]], "splits": {"train": counts, "val": counts},
    }  # fmt: skip
    (folder / CARD).write_bytes(damaged_json(rng, content))
    try:
        splits = Prepared.splits(folder)
    except KfcnError as error:
        return told(error)
    assert splits and all(isinstance(split, str) for split in splits)
    return READ


def bundle(rng: np.random.Generator, folder: Path) -> str:
    from kfcn_mobile.bundle import BundleError, read_bundle

    (folder / "golden").mkdir()
    margin = io.BytesIO()
    np.save(margin, np.ones(SIZE, np.float16))
    files = {
        "float32.tflite": b"\0\0\0\0TFL3" + bytes(40),
        "golden/0000_image.png": pictures()[0],
        "golden/0000_labels.png": encoded(mask(), "PNG"),
        "golden/0000_margin.npy": margin.getvalue(),
    }
    golden = {
        "name": "a", "image": "golden/0000_image.png", "labels": "golden/0000_labels.png",
        "margin": "golden/0000_margin.npy",
    }  # fmt: skip
    info = {
        "format": 1, "size": list(SIZE), "classes": ["ground", "car"],
        "palette": [[0, 0, 0], [9, 9, 9]], "golden": [golden],
        "models": [{"file": "float32.tflite", "mode": "float32"}],
    }  # fmt: skip
    victim = str(rng.choice(["bundle.json", *files]))
    if victim != "bundle.json":
        files[victim] = damaged(rng, files[victim])
    info["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    content = json.dumps(info).encode()
    (folder / "bundle.json").write_bytes(
        damaged_json(rng, info) if victim == "bundle.json" else content
    )
    try:
        found = read_bundle(folder)
    except BundleError as error:
        return told(error)
    for entry in found.golden:
        assert entry.image.shape == (*SIZE, 3) and entry.labels.shape == SIZE
        assert entry.labels.max() < len(found.classes) and (entry.margin >= 0).all()
    return READ


class Value:
    """What a checkpoint wants to know of a variable."""

    def __init__(self, value: np.ndarray):
        self.value, self.shape = value, value.shape

    def assign(self, value: np.ndarray) -> None:
        self.value = value

    def numpy(self) -> np.ndarray:
        return self.value

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.value


def checkpoint(rng: np.random.Generator, folder: Path) -> str:
    """A damaged checkpoint; the one before it is there."""
    from kfcn.training import checkpoint as checkpoints
    from kfcn.training.recorder import Progress

    row = {"epoch": 1, "loss": 0.5, "mean_iou": 0.25}
    for step in (2, 3):
        progress = Progress(step, [row], 0.5, 3.0, np.eye(3, dtype=np.int64), 1.0, 0.1)
        values = [Value(np.full((4, 5), step, np.float32)), Value(np.arange(6) * step)]
        checkpoints.save(folder, values, step, progress.note(), keep=3)
    path = folder / "step-00000003.npz"
    if rng.integers(3):
        path.write_bytes(damaged(rng, path.read_bytes()))
    else:  # the note alone, in an archive that is whole
        with np.load(path) as archive:
            arrays = dict(archive)
        note = damaged_json(rng, json.loads(arrays["note"].tobytes()))
        np.savez(path, **{**arrays, "note": np.frombuffer(note, np.uint8)})
    said = []
    variables = [Value(np.zeros((4, 5), np.float32)), Value(np.zeros(6, int))]
    progress = checkpoints.restore(folder, variables, said.append, Progress.from_note)
    assert progress.step == (2 if said else 3)
    for variable, saved in zip(variables, (np.full((4, 5), 1.0), np.arange(6)), strict=True):
        np.testing.assert_array_equal(variable.value, saved * progress.step)
    if said:
        assert re.match(r"checkpoint step-00000003\.npz is damaged", said[0]) and len(said) == 1
        assert "\n" not in said[0]
        return REFUSED
    return READ


SUBJECTS = {
    "images": image,
    "masks": label_map,
    "labelme": labelme,
    "coco": coco,
    "texts": text,
    "cards": card,
    "bundles": bundle,
    "checkpoints": checkpoint,
}
