"""Predictions in the formats of other programs, read by those programs and by kfcn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_nets import save_colour_run

from kfcn import data, predict
from kfcn.commands import predict as command
from kfcn.errors import KfcnError, UsageError
from kfcn.inference.beam import predict_by_beam
from kfcn.inference.formats import FORMATS
from kfcn.inference.formats.coco import regions

COLOURS = {"background": (0, 0, 0), "red one": (200, 10, 10), "green": (10, 200, 10)}


def save_run(folder, names):
    """A net that sees the class in the colour: dark, red or green."""
    folder.mkdir()
    save_colour_run(folder, dict(zip(names, COLOURS.values(), strict=True)))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "run", list(COLOURS))


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures of blocks, in several kinds of files; name -> labels."""
    folder, truth = tmp_path / "pictures", {}
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(12):
        height, width = 24 + 8 * (number % 3), 40 - 8 * (number % 2)
        blocks = rng.choice(3, (height // 8, width // 8), p=(0.5, 0.25, 0.25))
        labels = blocks.repeat(8, 0).repeat(8, 1).astype(np.uint8)
        image = Image.fromarray(np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0)], np.uint8)[labels])
        name = f"p {number}" if number == 4 else f"p{number:02d}"
        if number == 5:  # turned by the camera: what is stored lies on its side
            exif = image.getexif()
            exif[274] = 6
            image.rotate(90, expand=True).save(folder / f"{name}.png", exif=exif)
        elif number % 3 == 0:
            image.save(folder / f"{name}.jpg", quality=98, subsampling=0)
        elif number % 3 == 1:
            image.save(folder / f"{name}.bmp")
        else:
            image.save(folder / f"{name}.png")
        truth[name] = labels
    return folder, truth


def read_again(out, names):
    """Picture name -> labels of `names`, by kfcn's data set of any folder."""
    found = {}
    for split in ("train", "val"):
        dataset = data.load("folder", split, out)
        index_of = [names.index(name) if name in names else 255 for name in dataset.classes.names]
        for sample in dataset:
            found[Path(sample.name).stem] = np.array(index_of, np.uint8)[sample.labels]
    return found


@pytest.mark.parametrize("format", ["voc", "coco"])
def test_kfcn_reads_every_pixel_again(run, pictures, tmp_path, format):
    folder, truth = pictures
    result = predict(run, folder, tmp_path / "out", format=format)
    assert len(result.written) == 12 and not result.failed
    found = read_again(tmp_path / "out", list(COLOURS))
    assert found.keys() == truth.keys()
    for name, labels in truth.items():
        np.testing.assert_array_equal(found[name], labels, err_msg=name)
    copies = {p.name: p for p in (tmp_path / "out").rglob("*") if p.parent.name in PICTURES}
    assert len(copies) == 12
    assert copies["p00.jpg"].read_bytes() == (folder / "p00.jpg").read_bytes()
    with Image.open(copies["p05.png"]) as upright:  # what any program sees is what was segmented
        assert upright.size == truth["p05"].shape[::-1] and 274 not in upright.getexif()
    assert copies["p01.png"].exists()  # of a BMP


PICTURES = ("JPEGImages", "images")


def test_vocs_own_reader_refuses_other_classes(run, pictures, tmp_path):
    predict(run, [pictures[0]], tmp_path / "out", format="voc")
    with pytest.raises(UsageError, match="classes background, red one, green; expected VOC"):
        data.load("voc", "default", tmp_path / "out")


def test_a_net_without_background_keeps_all_its_classes(tmp_path, pictures):
    names = ["sky", "red one", "green"]
    run = save_run(tmp_path / "run", names)
    folder, truth = pictures
    predict(run, folder, tmp_path / "out", format="coco")
    content = json.loads((tmp_path / "out/annotations/instances_default.json").read_text())
    assert [c["name"] for c in content["categories"]] == names
    found = read_again(tmp_path / "out", names)
    for name, labels in truth.items():
        np.testing.assert_array_equal(found[name], labels, err_msg=name)


def test_a_void_class_is_no_object(tmp_path, pictures):
    run = save_run(tmp_path / "run", ["void", "red", "unknown"])
    predict(run, pictures[0], tmp_path / "out", format="coco")
    content = json.loads((tmp_path / "out/annotations/instances_default.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["red"]
    assert {region["category_id"] for region in content["annotations"]} == {1}


def test_pycocotools_reads_every_region(run, pictures, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    folder, truth = pictures
    predict(run, folder, tmp_path / "out", format="coco")
    read = coco.COCO(str(tmp_path / "out/annotations/instances_default.json"))
    assert {c["id"]: c["name"] for c in read.loadCats(read.getCatIds())} == {
        1: "red one",
        2: "green",
    }
    for number in read.getImgIds():
        (image,) = read.loadImgs(number)
        labels = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in read.loadAnns(read.getAnnIds(number)):
            mask = read.annToMask(annotation).astype(bool)
            assert mask.sum() == annotation["area"] and not labels[mask].any()
            ys, xs = np.nonzero(mask)
            x, y, w, h = annotation["bbox"]
            assert (xs.min(), ys.min()) == (x, y)
            assert (xs.max() - x + 1, ys.max() - y + 1) == (w, h)
            labels[mask] = annotation["category_id"]
        np.testing.assert_array_equal(labels, truth[Path(image["file_name"]).stem])


def test_regions_by_hand():
    labels = np.array([[1, 0, 1, 1], [0, 1, 0, 2], [1, 0, 0, 2]], np.uint8)
    found = regions(labels, {1: 7, 2: 9})
    assert [(r["category_id"], r["area"], r["bbox"]) for r in found] == [
        (7, 5, [0, 0, 4, 3]),
        (9, 2, [3, 1, 1, 2]),
    ]
    # Down the columns: 1 0 1 | 0 1 0 | 1 0 0 | 1 2 2.
    assert found[0]["segmentation"] == {"size": [3, 4], "counts": [0, 1, 1, 1, 1, 1, 1, 1, 2, 1, 2]}
    assert found[1]["segmentation"] == {"size": [3, 4], "counts": [10, 2]}
    assert regions(np.zeros((2, 2), np.uint8), {1: 1}) == []
    apart = regions(np.array([[1, 0, 0, 1]], np.uint8), {1: 1})
    assert [r["segmentation"]["counts"] for r in apart] == [[0, 1, 3], [3, 1]]


@pytest.mark.parametrize("format", ["voc", "coco"])
def test_a_second_folder_joins_the_first(run, pictures, tmp_path, format):
    folder, truth = pictures
    out = tmp_path / "out"
    first, second = sorted(folder.iterdir())[:7], sorted(folder.iterdir())[5:]
    predict(run, first, out, format=format)
    predict(run, second, out, format=format)
    found = read_again(out, list(COLOURS))
    assert found.keys() == truth.keys()
    for name, labels in truth.items():
        np.testing.assert_array_equal(found[name], labels, err_msg=name)
    if format == "coco":
        content = json.loads((out / "annotations/instances_default.json").read_text())
        assert [i["id"] for i in content["images"]] == list(range(1, 13))
        assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
        (out / "annotations/instances_default.json").write_text("{}")
    else:
        with (out / "ImageSets/Segmentation/default.txt").open("a") as file:
            file.write("mine\n")
    with pytest.raises(UsageError, match=r"already exists .*was changed after kfcn wrote it"):
        predict(run, first, out, format=format)


def test_masks_that_a_person_corrected_stay(run, pictures, tmp_path):
    folder, _ = pictures
    out = tmp_path / "out"
    predict(run, folder, out, format="voc")
    mask = out / "SegmentationClass/p02.png"
    with Image.open(mask) as picture:
        picture.putpixel((0, 0), 2)
        picture.save(mask)
    before = mask.read_bytes()
    result = predict(run, folder, out, format="voc")
    assert result.kept == [mask] and len(result.written) == 11
    assert mask.read_bytes() == before
    assert "p02" in (out / "ImageSets/Segmentation/default.txt").read_text().split()


def test_what_a_format_cannot_hold_is_refused_before_anything_is_written(pictures, tmp_path):
    folder, _ = pictures
    colon = save_run(tmp_path / "colon", ["background", "a:b", "c"])
    with pytest.raises(UsageError, match="'a:b' cannot stand in"):
        predict(colon, folder, tmp_path / "out", format="voc")
    card = json.loads((colon / "model.json").read_text())
    card |= {"classes": list(COLOURS), "palette": [[0, 0, 0], [1, 1, 1], [1, 1, 1]]}
    (colon / "model.json").write_text(json.dumps(card))
    with pytest.raises(KfcnError, match="two classes of the colour"):
        predict(colon, folder, tmp_path / "out", format="voc")
    colon = save_run(tmp_path / "other", ["background", "a:b", "c"])
    pytest.importorskip("apache_beam")
    with pytest.raises(UsageError, match="one file of all pictures"):
        predict_by_beam(colon, folder, tmp_path / "out", format="coco")
    assert not (tmp_path / "out").exists()


def test_beam_writes_the_folders_of_voc(run, pictures, tmp_path):
    pytest.importorskip("apache_beam")
    folder, _ = pictures
    predict(run, folder, tmp_path / "plain", format="voc")
    predict_by_beam(run, folder, tmp_path / "beam", format="voc")

    def content(root):
        files = (p for p in root.rglob("*") if p.is_file() and p.name[0] != ".")
        return {p.relative_to(root): p.read_bytes() for p in files}

    assert content(tmp_path / "plain") == content(tmp_path / "beam")


def test_the_help_names_every_format():
    assert f"--format {'|'.join(FORMATS)}" in command.parser().format_help()


_BY_DATUMARO = """
import sys
import numpy as np
from datumaro import Dataset
dataset = Dataset.import_from(sys.argv[1], "voc_segmentation")
names = [label.name for label in dataset.categories()[list(dataset.categories())[0]]]
found = {}
for item in dataset:
    height, width = item.media.data.shape[:2]
    labels = np.full((height, width), names.index("background"), np.uint8)
    for annotation in item.annotations:
        labels[np.asarray(annotation.image).astype(bool)] = annotation.label
    found[item.id] = labels
np.savez(sys.argv[2], names=np.array(names), **found)
"""


def _datumaro() -> str:
    """A Python that has datumaro: it wants an older OpenCV than kfcn, so not always this one."""
    python = os.environ.get("KFCN_DATUMARO", sys.executable)
    if subprocess.run([python, "-c", "import datumaro"], capture_output=True).returncode:
        pytest.skip("no datumaro; KFCN_DATUMARO names the Python of an environment that has it")
    return python


def test_datumaro_reads_every_pixel(run, pictures, tmp_path):
    python = _datumaro()
    folder, truth = pictures
    predict(run, folder, tmp_path / "out", format="voc")
    call = [python, "-c", _BY_DATUMARO, tmp_path / "out", tmp_path / "read.npz"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = np.load(tmp_path / "read.npz")
    names = read["names"].tolist()
    assert set(COLOURS) <= set(names)
    index_of = np.array([names.index(name) for name in COLOURS], np.uint8)
    assert set(read) - {"names"} == truth.keys()
    for name, labels in truth.items():
        np.testing.assert_array_equal(read[name], index_of[labels], err_msg=name)


@pytest.mark.parametrize("format", ["voc", "labelme"])
def test_a_net_of_other_classes_does_not_rename_those_of_another(run, pictures, tmp_path, format):
    folder, _ = pictures
    other, out = save_run(tmp_path / "other", ["background", "dog", "cat"]), tmp_path / "out"
    first, second = sorted(folder.iterdir())[:3], sorted(folder.iterdir())[3:5]
    predict(run, first, out, format=format)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(UsageError, match=r"of another model.*choose another --out"):
        predict(other, second, out, format=format)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    predict(other, second, out, format=format, overwrite=True)
    if format == "voc":  # the older masks, which have other classes, are listed no more
        listed = (out / "ImageSets/Segmentation/default.txt").read_text().splitlines()
        assert listed == sorted(path.stem for path in second)


def test_pictures_of_one_name_share_no_mask(run, pictures, tmp_path):
    folder, _ = pictures
    (picture,) = sorted(folder.glob("*.jpg"))[:1]
    predict(run, picture, tmp_path / "out", format="voc")
    predict(run, picture, tmp_path / "out", format="voc")  # the same one, again
    other = tmp_path / f"{picture.stem}.png"
    Image.new("RGB", (24, 16)).save(other)
    with pytest.raises(UsageError, match=r"JPEGImages/.*\.jpg and .*\.png would share a mask"):
        predict(run, other, tmp_path / "out", format="voc")


def test_links_of_polygons_lead_to_their_pictures_from_where_a_link_leads(run, pictures, tmp_path):
    folder, _ = pictures
    (tmp_path / "real/deep/er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real/deep/er")
    (picture,) = sorted(folder.glob("*.bmp"))[:1]
    predict(run, picture, tmp_path / "link", format="labelme")
    stored = json.loads((tmp_path / f"real/deep/er/{picture.stem}.json").read_text())["imagePath"]
    assert (tmp_path / "real/deep/er" / stored).resolve() == picture.resolve()
