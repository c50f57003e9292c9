"""Whole data sets with one file damaged, gone or in the way."""

import json
from pathlib import Path

import numpy as np
from drawn import CORNERS, RING, mask, picture, shape
from mutations import damaged, damaged_json, damaged_text

from subjects.outcomes import READ, REFUSED, told


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
