"""The readers of the public data sets, on tiny files drawn in their layouts."""

import json

import numpy as np
import pytest
from PIL import Image

from kfcn import data
from kfcn.data.sets import ade20k, cityscapes, tfds_set, voc
from kfcn.data.sets.coco import VOC_IDS
from kfcn.errors import DataError, UsageError
from kfcn.labels import voc_colour


def write(path, array, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(array, np.uint8))
    if palette:
        picture.putpalette([c for i in range(256) for c in voc_colour(i)])
    picture.save(path)


def write_image(path, height, width):
    write(path, np.full((height, width, 3), 90))


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# PASCAL VOC and SBD


@pytest.fixture
def vocdevkit(tmp_path):
    """VOC lists a, b for training and v, w for validation; SBD has b, s (train) and t, v (val)."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name, value in zip("abvw", (1, 2, 3, 4), strict=True):
        write(root / f"SegmentationClass/{name}.png", [[0, value], [255, value]], palette=True)
    for name in "abvwst":
        write_image(root / f"JPEGImages/{name}.jpg", 2, 2)
    write_text(root / "ImageSets/Segmentation/train.txt", "a\nb\n")
    write_text(root / "ImageSets/Segmentation/val.txt", "v\nw\n")
    return tmp_path


@pytest.fixture
def sbd(vocdevkit):
    io = pytest.importorskip("scipy.io")
    root = vocdevkit / "benchmark_RELEASE" / "dataset"
    (root / "cls").mkdir(parents=True)
    for name, value in zip("bstv", (12, 13, 14, 15), strict=True):
        labels = np.array([[0, value], [0, value]], np.uint8)
        boundaries = np.zeros((20, 1), object)
        io.savemat(
            root / "cls" / f"{name}.mat",
            {"GTcls": {"Segmentation": labels, "Boundaries": boundaries}},
        )
    write_text(root / "train.txt", "b\ns\n")
    write_text(root / "val.txt", "t\nv\n")
    return root


def stems(dataset):
    return [dataset.file_name(i).split("/")[-1].split(".")[0] for i in range(len(dataset))]


def greatest(dataset):
    """Name -> greatest class index of each label map."""
    return {
        stem: int(np.where(s.labels == 255, 0, s.labels).max())
        for stem, s in zip(stems(dataset), dataset, strict=True)
    }


@pytest.mark.parametrize("folder", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_reads_palette_masks_from_any_level(vocdevkit, folder):
    train = data.load("voc", "train", vocdevkit / folder)
    assert stems(train) == ["a", "b"]
    assert train[1].labels.tolist() == [[0, 2], [255, 2]]
    assert len(train.classes) == 21
    assert train.classes.names[15] == "person" and train.classes.palette[15] == (192, 128, 128)
    assert data.splits("voc", vocdevkit / folder) == ("train", "val")


def test_an_export_in_vocs_folders_has_vocs_classes_or_is_refused(vocdevkit):
    root = vocdevkit / "VOCdevkit" / "VOC2012"
    rows = [
        f"{name}:{red},{green},{blue}::\n"
        for name, (red, green, blue) in zip(voc.CLASSES.names, voc.CLASSES.palette, strict=True)
    ]
    for kept in (rows, sorted(rows), [*rows, "ignored:224,224,192::\n"]):  # CVAT's and Datumaro's
        write_text(root / "labelmap.txt", "".join(kept))
        assert data.load("voc", "train", vocdevkit)[0].labels.tolist() == [[0, 1], [255, 1]]
    for other in (rows[:7], [*rows[:-1], "screen:0,64,128::\n"], [rows[0], "road:1,2,3::\n"]):
        write_text(root / "labelmap.txt", "".join(other))
        with pytest.raises(
            UsageError,
            match=r"labelmap\.txt has the classes background, .*; expected VOC's 21 .*: read these "
            r"with --data folder --data-dir \S+VOC2012$",
        ):
            data.load("voc", "train", vocdevkit)


def test_train_aug_takes_vocs_maps_before_sbds_and_no_validation_image(vocdevkit, sbd):
    assert data.splits("voc", vocdevkit) == ("train", "val", "train_aug")
    found = greatest(data.load("voc", "train_aug", vocdevkit))
    assert found == {"a": 1, "b": 2, "s": 13, "t": 14}  # b has SBD's 12 too; v is VOC's val
    # A list of one's own, and PNGs in the place of the .mat files, go first.
    write_text(vocdevkit / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt", "s\n")
    write(vocdevkit / "VOCdevkit/VOC2012/SegmentationClassAug/s.png", [[0, 9], [0, 9]])
    assert greatest(data.load("voc", "train_aug", vocdevkit)) == {"s": 9}


def test_seg11valid_is_voc_2011s_validation_without_sbds_training_images(vocdevkit, sbd):
    with pytest.raises(UsageError, match="no split 'seg11valid'"):
        data.load("voc", "seg11valid", vocdevkit)
    write_text(vocdevkit / "VOCdevkit/VOC2011/ImageSets/Segmentation/val.txt", "b\nv\n")
    assert greatest(data.load("voc", "seg11valid", vocdevkit)) == {"v": 3}


def test_a_listed_file_that_is_missing_is_named(vocdevkit):
    (vocdevkit / "VOCdevkit/VOC2012/SegmentationClass/b.png").unlink()
    with pytest.raises(DataError, match=r"train\.txt: lists 2 pairs with 1 missing file: .*b\.png"):
        data.load("voc", "train", vocdevkit)


def test_a_broken_mat_file_is_named(vocdevkit, sbd):
    (sbd / "cls/s.mat").write_bytes(b"no mat file at all" * 20)
    train = data.load("voc", "train_aug", vocdevkit)
    with pytest.raises(DataError, match=r"s\.mat: cannot be read as an SBD label map"):
        data.check(train)


# COCO


def polygon(x0, y0, x1, y1):
    """A rectangle of whole pixels, the last ones not included."""
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


@pytest.fixture
def coco(tmp_path):
    """Three pictures of 20x30: people and a crowd, a toaster on a dog, a tiny cat."""
    pytest.importorskip("pycocotools")
    names = {1: "person", 17: "cat", 18: "dog", 80: "toaster"}
    crowd = np.zeros((20, 30), np.uint8)
    crowd[15:, 20:] = 1
    runs, value, count = [], 0, 0
    for pixel in [*crowd.ravel(order="F").tolist(), None]:
        if pixel != value:
            runs.append(count)
            value, count = pixel, 0
        count += 1
    annotations = [
        (7, 1, polygon(2, 3, 6, 9), 24, 0),
        (7, 1, {"size": [20, 30], "counts": runs}, 50, 1),
        (8, 80, polygon(10, 5, 14, 9), 16, 0),  # the small one comes first in the file
        (8, 18, polygon(0, 0, 30, 20), 1200, 0),
        (9, 17, polygon(0, 0, 10, 19), 190, 0),
    ]
    content = {
        "images": [
            {"id": 7 + i, "file_name": f"{i:012d}.jpg", "height": 20, "width": 30} for i in range(3)
        ],
        "categories": [{"id": i, "name": n} for i, n in sorted(names.items(), reverse=True)],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "segmentation": s, "area": a, "iscrowd": w}
            for k, (i, c, s, a, w) in enumerate(annotations)
        ],
    }
    joints = {
        **content,
        "categories": [{"id": 1, "name": "person", "skeleton": [[16, 14], [14, 12]]}],
        "annotations": [
            {"image_id": 7, "num_keypoints": 2, "keypoints": [4, 5, 2] * 2 + [0, 0, 0] * 15},
            {"image_id": 7, "num_keypoints": 0, "keypoints": [0, 0, 0] * 17},
        ],
    }
    for split in ("train", "val"):
        for picture in content["images"]:
            write_image(tmp_path / f"{split}2017" / picture["file_name"], 20, 30)
        for kind, value in (("instances", content), ("person_keypoints", joints)):
            write_text(tmp_path / f"annotations/{kind}_{split}2017.json", json.dumps(value))
    return tmp_path


def test_coco_paints_polygons_crowds_and_small_objects_over_large_ones(coco):
    train = data.load("coco", "train", coco)
    assert train.classes.names == ("background", "person", "cat", "dog", "toaster")
    people, dog, cat = (sample.labels for sample in train)
    expected = np.zeros((20, 30), np.uint8)
    expected[3:9, 2:6] = 1
    expected[15:, 20:] = 1  # the crowd
    np.testing.assert_array_equal(people, expected)
    expected = np.full((20, 30), 3)
    expected[5:9, 10:14] = 4
    np.testing.assert_array_equal(dog, expected)
    assert np.count_nonzero(cat == 2) == 190


def test_coco_in_vocs_classes_with_both_filters(coco):
    assert data.load("coco", "train", coco).notes == ()
    train = data.load("coco", "train", coco, classes="voc")
    assert train.classes == voc.CLASSES and len(VOC_IDS) == 20
    assert stems(train) == ["000000000001"]  # more than 1000 pixels
    assert "kept 1 of 3 images" in train.notes[0] and "paper's" in train.notes[0]
    labels = train[0].labels
    assert (labels == 12).all()  # the dog: a toaster is background and hides nothing
    # The tiny cat covers 190 pixels: too few for the paper as well.
    assert stems(data.load("coco", "train", coco, classes="voc-200")) == ["000000000001"]
    assert len(data.load("coco", "val", coco, classes="voc")) == 3  # never left out
    with pytest.raises(
        UsageError, match=r"coco has no class 'pets'; it has: background, .*; or voc, voc-200"
    ):
        data.load("coco", "train", coco, classes="pets")


def test_the_papers_filter_counts_pixels_and_not_areas(coco):
    """Two outlines of 110 pixels each, the same ones: 220 by their areas, 110 in the picture."""
    path = coco / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    for x, ids in ((0, (100, 101)), (11, (102,))):
        for number in ids:
            content["annotations"].append(
                {
                    "id": number, "image_id": 10, "category_id": 17, "iscrowd": 0, "area": 110,
                    "segmentation": polygon(x, 0, x + 11, 10),
                }
            )  # fmt: skip
    content["images"].append({"id": 10, "file_name": "x.jpg", "height": 20, "width": 30})
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    write_image(coco / "train2017/x.jpg", 20, 30)
    assert "x" not in stems(data.load("coco", "train", coco, classes="voc-200"))
    content["annotations"][-1]["segmentation"] = polygon(11, 0, 22, 10)
    path.write_text(json.dumps(content))
    assert "x" in stems(data.load("coco", "train", coco, classes="voc-200"))


def test_the_joints_of_people(coco):
    joints, skeleton = data.load("coco", "val", coco).joints(0)
    assert joints.shape == (1, 17, 3) and joints[0, :3].tolist() == [[4, 5, 2], [4, 5, 2], [0] * 3]
    assert skeleton == [(15, 13), (13, 11)]
    assert data.load("coco", "val", coco).joints(1)[0].shape == (0, 17, 3)


def test_a_damaged_instances_file_is_named(coco):
    path = coco / "annotations/instances_val2017.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match=r"instances_val2017\.json: cannot be read as JSON"):
        data.load("coco", "val", coco)
    path.write_text('{"images": [], "categories": []}')
    with pytest.raises(DataError, match=r"not a COCO instances file .*KeyError: 'annotations'"):
        data.load("coco", "val", coco)


# ADE20K, Cityscapes, Pet


def test_ade20k_has_150_classes_and_0_is_ignored(tmp_path):
    for split in ("training", "validation"):
        write_image(tmp_path / f"ADEChallengeData2016/images/{split}/a.jpg", 1, 4)
        write(tmp_path / f"ADEChallengeData2016/annotations/{split}/a.png", [[0, 1, 13, 150]])
    val = data.load("ade20k", "val", tmp_path)
    assert len(val.classes) == 150 == len(set(ade20k.NAMES))
    assert val[0].labels.tolist() == [[255, 0, 12, 149]]
    assert [val.classes.names[i] for i in (0, 12, 149)] == ["wall", "person", "flag"]
    assert data.check(val).ignored == 1


def test_cityscapes_counts_19_of_its_34_ids(tmp_path):
    for split in ("train", "val"):
        stem = f"{split}/aachen/aachen_000000_000019"
        write_image(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", 2, 34)
        write(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png", [np.arange(34)] * 2)
        write(tmp_path / f"gtFine/{stem}_gtFine_color.png", np.zeros((2, 34, 3)))
    train = data.load("cityscapes", "train", tmp_path)
    labels = train[0].labels[0]
    assert [int(i) for i in np.flatnonzero(labels != 255)] == [
        7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33,
    ]  # fmt: skip
    assert labels[labels != 255].tolist() == list(range(19))
    assert (cityscapes.CLASSES.names[labels[26]], labels[24]) == ("car", 11)
    assert data.splits("cityscapes", tmp_path) == ("train", "val")


def test_the_trimap_of_a_pet(tmp_path):
    names = [f"Birman_{i}" for i in range(40)]
    for name in (*names, "pug_1"):
        write_image(tmp_path / f"images/{name}.jpg", 1, 3)
        write(tmp_path / f"annotations/trimaps/{name}.png", [[1, 2, 3]])
    write_text(tmp_path / "annotations/trainval.txt", "".join(f"{n} 1 1 1\n" for n in names))
    write_text(tmp_path / "annotations/test.txt", "pug_1 2 2 1\n")
    assert data.splits("pet", tmp_path) == ("train", "val", "trainval", "test")
    sets = {split: data.load("pet", split, tmp_path) for split in data.splits("pet", tmp_path)}
    assert sets["test"][0].labels.tolist() == [[1, 0, 255]]
    assert sets["test"].classes.names == ("background", "pet")
    assert sorted(stems(sets["train"]) + stems(sets["val"])) == sorted(names)
    assert 0 < len(sets["val"]) < 10
    write(tmp_path / "annotations/trimaps/pug_1.png", [[0, 2, 3]])
    with pytest.raises(DataError, match="found label 254"):
        data.check(data.load("pet", "test", tmp_path))


@pytest.mark.parametrize("name", ["voc", "coco", "cityscapes"])
def test_a_folder_without_the_data_set_is_told_what_belongs_there(name, tmp_path):
    for folder in (tmp_path, None):
        with pytest.raises(UsageError) as caught:
            data.load(name, "train", folder)
        assert "from " in str(caught.value) or "VOCtrainval" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_choice_of_classes_is_for_sets_that_have_one(vocdevkit):
    with pytest.raises(UsageError, match="voc has no class 'voc'; it has: background, aeroplane"):
        data.load("voc", "train", vocdevkit, classes="voc")


def shapes_builder():
    """A builder as TFDS has them: named masks, three sizes, a split of its own name."""
    import tensorflow_datasets as tfds

    if "kfcn_shapes" in tfds.list_builders():
        return "kfcn_shapes"

    class KfcnShapes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            picture = tfds.features.Image(shape=(None, None, 3))
            mask = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
            features = {"photo": picture, "segmentation_mask": mask, "depth": mask}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples(20), "extra": self._generate_examples(3)}

        def _generate_examples(self, count):
            for index in range(count):
                labels = np.full((6, 7 + index % 3, 1), index % 4, np.uint8)
                labels[0, 0] = 255
                image = np.full((6, 7 + index % 3, 3), 10 * index, np.uint8)
                yield index, {"photo": image, "segmentation_mask": labels, "depth": labels + 1}

    return KfcnShapes.name


@pytest.mark.parametrize("format", [None, "tfrecord"])
def test_a_data_set_of_tfds_is_read_whoever_prepared_it(tmp_path, format):
    import tensorflow_datasets as tfds

    name = shapes_builder()
    if format is not None:  # prepared before, in its own format; else kfcn has it prepared
        tfds.builder(name, data_dir=tmp_path, file_format=format).download_and_prepare()
    assert set(data.splits(f"tfds:{name}", tmp_path)) == {"train", "extra", "val"}
    train = data.load(f"tfds:{name}", "train", tmp_path)
    val = data.load(f"tfds:{name}", "val", tmp_path)
    assert (len(train), len(val)) == (18, 2)  # the last tenth
    assert train.classes.names == ("class 0", "class 1", "class 2", "class 3")
    assert "found labels 0 to 3" in train.notes[0]
    seen = set()
    for sample in (*train, *val):
        index = int(sample.image[0, 0, 0]) // 10
        seen.add(index)
        assert sample.image.shape == (6, 7 + index % 3, 3) and (sample.image == 10 * index).all()
        assert sample.labels[0, 0] == 255 and (sample.labels.ravel()[1:] == index % 4).all()
    assert seen == set(range(20))
    suffixes = {path.suffix.split("-")[0] for path in tmp_path.rglob("*-train.*")}
    assert suffixes == {f".{format or 'array_record'}"}
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    named = data.load(f"tfds:{name}", "extra", tmp_path, classes=str(tmp_path / "classes.txt"))
    assert named.classes.names == ("a", "b", "c", "d") and len(named) == 3


def test_a_data_set_of_tfds_without_train_asks_for_its_classes(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    name = shapes_builder()
    tfds.builder(name, data_dir=tmp_path, file_format="tfrecord").download_and_prepare()
    monkeypatch.setattr(tfds_set, "_parts", lambda info: {"extra": "extra"})
    with pytest.raises(UsageError, match=r"has no split train whose labels .* --classes classes"):
        data.load(f"tfds:{name}", "extra", tmp_path)
