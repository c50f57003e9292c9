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

    row = {"epoch": 1, "loss": 0.5, "mean_iou": 0.25, "val_mean_iou": 0.5}
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


def changed_text(rng: np.random.Generator, text: str) -> str:
    """A variable of the environment, damaged."""
    content = damaged_text(rng, text).decode("utf-8", "replace").replace("\0", "")
    return content.encode("utf-8", "replace").decode()


def config(rng: np.random.Generator, folder: Path) -> str:
    """`config.json` of a run."""
    import dataclasses

    from kfcn.commands.train import _kernels, parser
    from kfcn.errors import KfcnError
    from kfcn.options import kinds
    from kfcn.training.resolution import continued
    from kfcn.training.run_folder import RunFolder
    from kfcn.training.settings import Settings

    sound = dataclasses.asdict(Settings(data="folder", data_dir="x", iou_loss=0.5))
    content = {
        "format": 2, "settings": sound, "data": {"train": "ab", "val": "cd"},
        "versions": {"kfcn": "0.1.0"}, "machine": {"cpu": "x", "cores": 2, "onednn": False},
    }  # fmt: skip
    run = RunFolder(folder)
    run.config.write_bytes(damaged_json(rng, content))
    _kernels(parser().parse_args(["--run-dir", str(folder)]))
    try:
        found = run.stored_settings()
        assert found is not None
        said = run.other_kernels()
        assert said is None or "\n" not in said
        continued(found, {}, folder)
        run.check_data(found, {"train": "ab", "val": "cd"})
    except KfcnError as error:
        return told(error)
    stored = json.loads(run.config.read_text(encoding="utf-8-sig"))["settings"]
    for name, kind in kinds(Settings).items():
        value = getattr(found, name)
        expected = stored.get(name, kind.default)
        assert json.dumps(value, allow_nan=False) == json.dumps(_as(value, expected)), name
        assert kind.checked(value) == value
    return READ


def _as(value, stored):
    """A stored number as a float where it is read as one."""
    if isinstance(value, float):
        return float(stored)
    if isinstance(value, tuple):
        return [_as(*pair) for pair in zip(value, stored, strict=True)]
    if isinstance(value, dict):
        return {name: float(number) for name, number in stored.items()}
    return stored


CARD_OF_A_NET = {
    "kfcn_version": "0.1.0", "architecture": "fcn8s", "backbone": "mobilenet_v2",
    "classes": ["ground", "car", "Straße"], "palette": [[0, 0, 0], [9, 9, 9], [1, 2, 3]],
    "ignore": 255, "net": {"alpha": 0.5, "output_stride": 16}, "grouping": "ground=road\ncar",
    "reading": {
        "ignore": "none", "pages": "one", "unlabelled": "ignore", "stretch": [0, 4095],
    },
}  # fmt: skip


def net_card(rng: np.random.Generator, folder: Path) -> str:
    """`model.json` and `crf.json` beside a net, and all that is made of them before it is used."""
    from kfcn.data.grouping import Grouping
    from kfcn.data.reading import Reading
    from kfcn.errors import KfcnError
    from kfcn.inference.formats import writer_for
    from kfcn.outputs import Outputs
    from kfcn.saved import check_card, read_card, read_crf
    from kfcn.training.resolution import resolve

    (folder / "model.keras").write_bytes(b"")
    widths = {"theta_alpha": 80.0, "theta_beta": 3.0, "bilateral_weight": 0}
    files = {"model.json": CARD_OF_A_NET, "crf.json": {"crf": widths, "mean_iou": 0.5}}
    victim = str(rng.choice(["model.json", "model.json", "crf.json"]))
    for name, content in files.items():
        sound = json.dumps(content).encode()
        (folder / name).write_bytes(damaged_json(rng, content) if name == victim else sound)
    try:
        found, crf = read_card(folder), read_crf(folder)
        check_card(found, 3, folder)
        resolve(init_from=str(folder), data="folder", data_dir=str(folder))
        reading = Reading.of_card(found)
        writer = writer_for(3, found, Outputs(folder / "out"), "png")
        assert found is not None
        if found.get("grouping"):
            Grouping.parse(found["grouping"])
    except KfcnError as error:
        return told(error)
    stored = json.loads((folder / "model.json").read_text(encoding="utf-8-sig"))
    assert list(writer.names) == stored["classes"] and len(set(writer.names)) == 3
    assert np.asarray(writer.palette).shape == (3, 3)
    how = stored.get("reading") or {}
    assert reading.ignore == how.get("ignore", "255")
    assert list(reading.stretch or []) == (how.get("stretch") or [])
    stored = json.loads((folder / "crf.json").read_text(encoding="utf-8-sig"))
    assert crf == stored["crf"] and all(0 <= value < np.inf for value in crf.values())
    return READ


NODES = {
    "SLURM_STEP_NUM_TASKS": "5", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "n[01-02],gpu7",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_STEP_NUM_NODES": "3", "SLURM_NTASKS": "5",
    "SLURM_JOB_NODELIST": "n[01-02]", "SLURM_NODELIST": "n[01-02]", "SLURM_NODEID": "0",
    "SLURM_LOCALID": "1",
}  # fmt: skip


def cluster(rng: np.random.Generator, folder: Path) -> str:
    """What the environment says of the other workers."""
    import os
    from unittest import mock

    from kfcn.errors import KfcnError
    from kfcn.training import replicas

    if rng.integers(2):
        content = {
            "cluster": {"chief": ["a:1"], "worker": ["b:22", "10.0.0.1:333", "[::1]:4444"]},
            "task": {"type": "worker", "index": 1},
        }
        variables = {"TF_CONFIG": damaged_json(rng, content).decode("utf-8", "replace")}
        variables["TF_CONFIG"] = variables["TF_CONFIG"].replace("\0", "")
    else:
        variables = dict(NODES)
        for name in rng.choice(list(NODES), rng.integers(1, 3), replace=False).tolist():
            variables[name] = changed_text(rng, NODES[name])
            if rng.integers(3) == 0:
                ranges = ("n[1-99999999999]", "n[9-1]", "n[", "a[1-2]b[3-4]", "2(x999999999)", "-1")
                variables[name] = str(rng.choice(ranges))
            if rng.integers(6) == 0:
                del variables[name]
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "TF_CONFIG"))}
    try:
        with mock.patch.dict(os.environ, keep | variables, clear=True):
            found = replicas._cluster()
    except KfcnError as error:
        return told(error)
    if found is not None:
        _, worker, addresses = found
        assert 0 <= worker < len(addresses) and len(set(addresses)) == len(addresses) < 10_000
        assert all(str(address).rpartition(":")[2].isdigit() for address in addresses)
    return READ


def _labelled_folder(rng: np.random.Generator, root: Path) -> str:
    """Three pictures with labels in one of the layouts that people have."""
    from drawn import coco as write_coco
    from drawn import cvat as write_cvat
    from drawn import labelme as write_labelme
    from drawn import save, write

    layout = str(rng.choice(["pairs", "labelme", "coco", "cvat", "cvat-xml", "beside", "voc"]))
    names = ["a", "b c", "Straße"]
    for index, name in enumerate(names):
        image = picture(index)
        if layout == "pairs":
            save(root / f"images/train/{name}.png", image)
            save(root / f"labels/train/{name}.png", mask())
        elif layout == "labelme":
            save(root / f"train/{name}.png", image)
            write_labelme(root / f"train/{name}.json", f"{name}.png", [shape("car", CORNERS)])
        elif layout == "beside":
            save(root / f"train/{name}.png", image)
            save(root / f"train/{name}_mask.png", mask())
        elif layout in ("coco", "cvat-xml"):
            save(root / f"train/{name}.png", image)
        else:
            save(root / f"JPEGImages/{name}.png", image)
            save(root / f"SegmentationClass/{name}.png", mask())
    if layout == "coco":
        annotations = [(index, 1, {"segmentation": [RING]}) for index in range(3)]
        write_coco(root / "train/_annotations.coco.json", [f"{n}.png" for n in names], annotations)
    elif layout == "cvat-xml":
        line = '<polyline label="car" points="12,10;40.5,10;40,30" z_order="1"/>'
        shapes = '<polygon label="car" points="12,10;40,10;40,30"/>' + line
        write_cvat(root / "annotations.xml", {f"train/{name}.png": shapes for name in names})
    elif layout == "beside":
        write(root / "train/_classes.csv", "Pixel Value, Class\n0, background\n1, car\n")
    elif layout == "cvat":
        write(root / "labelmap.txt", "background:0,0,0::\ncar:1,1,1::\n")
    else:
        write(root / "classes.txt", "background\ncar\n")
    if layout in ("cvat", "voc"):
        lists = root / "ImageSets/Segmentation"
        write(lists / "train.txt", "".join(f'"{name}"\n' for name in names))
        write(lists / "val.txt", "a\n")
    return "voc" if layout == "voc" else "folder"


def data_folder(rng: np.random.Generator, folder: Path) -> str:
    """A whole data set with one file damaged, gone or in the way, through the audit."""
    from kfcn import data
    from kfcn.data.audit.audit import audit_split
    from kfcn.errors import KfcnError

    kind = _labelled_folder(rng, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    victim = files[int(rng.integers(len(files)))]
    content, what = victim.read_bytes(), int(rng.integers(8))
    if what == 0:
        victim.unlink()
    elif what == 1:
        victim.unlink()
        victim.mkdir()
    elif what == 2:
        victim.rename(victim.with_name(f"{'n' * 250}{victim.suffix}"))
    elif what == 3:
        victim.with_name(f"{victim.stem} copy{victim.suffix}").write_bytes(content)
    elif victim.suffix == ".json":
        victim.write_bytes(damaged_json(rng, json.loads(content)))
    elif victim.suffix == ".png":
        victim.write_bytes(damaged(rng, content))
    else:
        victim.write_bytes(damaged_text(rng, content.decode()))
    outcome, shown = READ, 0
    try:
        for split in data.splits(kind, folder):
            dataset = data.load(kind, split, folder)
            audit = audit_split(dataset)
            for faults in audit.errors.values():
                for fault in faults:
                    outcome = told(ValueError(fault))
            assert all("\n" not in note for note in dataset.notes)
            for index in range(len(dataset)):
                try:
                    sample = dataset[index]
                except KfcnError as error:
                    outcome = told(error)
                    continue
                assert sample.labels.dtype == np.uint8 and sample.image.dtype == np.uint8
                shown += 1
    except KfcnError as error:
        return told(error)
    assert outcome == REFUSED or shown > 0 or kind == "folder"
    return outcome


def manifest(rng: np.random.Generator, folder: Path) -> str:
    """`.kfcn.jsonl`: whatever it holds, a file that somebody has changed is never kfcn's own."""
    from kfcn.errors import KfcnError
    from kfcn.outputs import MANIFEST, Outputs, State

    outputs = Outputs(folder)
    ours, theirs = folder / "a.png", folder / "b.png"
    with outputs.lock():
        outputs.write_text(ours, "kfcn")
        outputs.write_text(theirs, "kfcn")
    theirs.write_text("corrected")
    file = folder / MANIFEST
    file.write_bytes(damaged(rng, file.read_bytes()))
    outputs = Outputs(folder)
    try:
        with outputs.lock():
            states = outputs.state(ours), outputs.state(theirs)
            left = outputs.check([theirs], leave=tuple(State))
    except KfcnError as error:
        return told(error)
    assert states[1] is not State.OURS and left == [theirs]
    assert theirs.read_text() == "corrected" and ours.read_text() == "kfcn"
    return READ if states[0] is State.OURS else REFUSED


def program(rng: np.random.Generator, folder: Path) -> str:
    """A net as it is stored for the next start: whole, or made again."""
    from kfcn.inference.runtime.program import Program, Step

    weights = {"kernel": np.arange(81, dtype=np.float32).reshape(3, 3, 3, 3), "bias": np.ones(3)}
    steps = (
        Step("conv", (0,), {"stride": [1, 1], "dilation": [1, 1], "padding": "same"}, weights),
        Step("activate", (1,), {"function": "relu"}, {}),
    )
    content = Program(steps, 3, 1).to_bytes()
    path = folder / "x.npz"
    path.write_bytes(damaged(rng, content))
    found = Program.load(path)
    if found is None:
        return REFUSED
    assert (found.classes, found.margin, len(found.steps)) == (3, 1, 2)
    for step, sound in zip(found.steps, steps, strict=True):
        assert (step.kind, step.inputs, step.options) == (sound.kind, sound.inputs, sound.options)
        for name, array in sound.weights.items():
            np.testing.assert_array_equal(step.weights[name], array)
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
    "configs": config,
    "nets": net_card,
    "clusters": cluster,
    "folders": data_folder,
    "manifests": manifest,
    "programs": program,
}
