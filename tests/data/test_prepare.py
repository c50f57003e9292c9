"""Prepared data: the same pairs and batches as from the files, whoever wrote them."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from processes import small_disk

from kfcn import data
from kfcn.data.catalog import Source
from kfcn.data.feed.batches import training_batches
from kfcn.data.prepare import plan
from kfcn.data.prepare import prepare as module
from kfcn.data.prepare.prepare import prepare
from kfcn.data.reading import Reading
from kfcn.data.sets.prepared import Prepared
from kfcn.errors import DataError, KfcnError, UsageError, WriteError
from kfcn.files import TEMPORARY
from kfcn.outputs import Outputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pairs of every kind: JPEG, palette PNG, a phone's photo on its side, transparency, CMYK."""
    root = tmp_path_factory.mktemp("folder")
    (root / "classes.txt").write_text("sky #102030\nsea\nland\n")
    rng = np.random.default_rng(0)
    for split, count in (("train", 11), ("val", 3)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            height, width = rng.integers(20, 40, 2)
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
            labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width))
            path = root / "images" / split / f"p{index:02d}"
            exif = Image.Exif()
            if index == 1:
                exif[0x0112] = 6
                labels = np.rot90(labels, -1)
            if index == 2:
                image.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), np.uint8)))
            if index == 3:
                image = image.convert("CMYK")
            suffix = ".png" if index in (0, 2) else ".jpg"
            image.save(path.with_suffix(suffix), exif=exif)
            Image.fromarray(labels).save(root / "labels" / split / f"p{index:02d}.png")
    return root


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(plan, "SHARD_BYTES", 8000)


def contents(out):
    return {path.name: path.read_bytes() for path in out.glob("kfcn_prepared-*")}


@pytest.mark.parametrize("format", ["array_record", "tfrecord"])
def test_prepared_pairs_are_the_folders_own(folder, tmp_path, format):
    out = prepare(Source("folder", folder), tmp_path / "out", format=format, workers=1)
    assert len(contents(out)) > 4  # several shards
    assert data.splits("prepared", out) == ("train", "val")
    for split in ("train", "val"):
        a, b = data.load("folder", split, folder), data.load("prepared", split, out)
        assert b.classes == a.classes and len(b) == len(a)
        for index in range(len(a)):
            assert b[index].name == a[index].name == b.file_name(index)
            np.testing.assert_array_equal(b[index].image, a[index].image)
            np.testing.assert_array_equal(b[index].labels, a[index].labels)
            assert b.size(index) == a.size(index) == a[index].labels.shape
        counts, kept = data.check(a), data.check(b)
        assert (kept.pixels == counts.pixels).all() and kept.ignored == counts.ignored
        assert (kept.image_pixels == counts.image_pixels).all() and kept.images == counts.images


def test_batches_are_the_same_as_from_the_folder(folder, tmp_path):
    out = prepare(Source("folder", folder), tmp_path / "out", workers=1)
    streams = [
        training_batches(data.load(name, "train", place), 4, (16, 24), seed=5).take(5)
        for name, place in (("folder", folder), ("prepared", out))
    ]
    for (images, labels), (others, truth) in zip(*streams, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, truth)


def test_tfds_itself_reads_the_files(folder, tmp_path):
    """By another program's decoder: labels by value, pictures as that decoder gives them."""
    import tensorflow_datasets as tfds

    out = prepare(Source("folder", folder), tmp_path / "out", workers=1, format="tfrecord")
    read = tfds.builder_from_directory(out).as_dataset(split="val")
    found = {e["file_name"].decode(): e for e in tfds.as_numpy(read)}
    for sample in data.load("folder", "val", folder):
        example = found[sample.name]
        np.testing.assert_array_equal(example["segmentation_mask"][..., 0], sample.labels)
        difference = example["image"].astype(int) - sample.image
        assert np.abs(difference).max() <= 8


def test_a_stopped_pass_goes_on_where_it_stopped(folder, tmp_path, monkeypatch):
    whole = prepare(Source("folder", folder), tmp_path / "whole", workers=1)
    done = []

    def stop(shard):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(shard.number)
        return write_shard(shard)

    write_shard = module.write_shard
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(Source("folder", folder), tmp_path / "out", workers=1)
    assert Prepared.splits(tmp_path / "out") == ()  # not before it is whole
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("kfcn_prepared-*")}
    assert len(first) == 2
    prepare(Source("folder", folder), tmp_path / "out", workers=1)
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())
    assert contents(tmp_path / "out") == contents(whole)
    with pytest.raises(UsageError, match="holds another pass"):
        prepare(Source("folder", folder), tmp_path / "out", workers=1, format="tfrecord")


@pytest.mark.long
def test_processes_and_beam_write_the_same_bytes(folder, tmp_path):
    pytest.importorskip("apache_beam")
    alone = prepare(Source("folder", folder), tmp_path / "alone", workers=1)
    # Spawned processes import the module anew, with its own SHARD_BYTES; the plan holds.
    both = prepare(Source("folder", folder), tmp_path / "both", workers=2)
    beam = prepare(Source("folder", folder), tmp_path / "beam", beam=[])
    assert contents(alone) == contents(both) == contents(beam)


def test_a_pair_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "in/classes.txt").parent.mkdir()
    (tmp_path / "in/classes.txt").write_text("sky\n")
    for kind, array in (("images", np.zeros((4, 4, 3))), ("labels", np.full((4, 4), 7))):
        path = tmp_path / f"in/{kind}/train/a.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(array.astype(np.uint8)).save(path)
    with pytest.raises(DataError, match=r"labels/train/a\.png: found label 7; expected 0 to 0"):
        prepare(Source("folder", tmp_path / "in"), tmp_path / "out", workers=1)


def test_folders_that_are_something_else_are_left_alone(folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and holds no prepared data"):
        prepare(Source("folder", folder), tmp_path)
    with pytest.raises(UsageError, match="does not hold prepared; expected what kfcn-data"):
        data.load("prepared", "train", tmp_path)


def test_a_split_without_pictures_is_refused_before_any_work(folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "in")
    for kind in ("images", "labels"):
        (root / kind / "test").mkdir()
    with pytest.raises(DataError, match="split 'test' is empty"):
        prepare(Source("folder", root), tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_splits_of_other_names(tmp_path):
    """Of CVAT's lists; all of them where none is called train, val or test."""
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:2] = 9
    for kind in ("images", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / kind).mkdir(parents=True)
    for name, split in (("a", "spring"), ("b", "autumn")):
        Image.fromarray(pixels).save(tmp_path / f"images/{name}.png")
        Image.fromarray(pixels).save(tmp_path / f"SegmentationClass/{name}.png")
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text(name)
    (tmp_path / "labelmap.txt").write_text("back:0,0,0::\ncar:9,9,9::\n")
    out = prepare(Source("folder", tmp_path), tmp_path / "out", workers=1)
    assert set(data.splits("prepared", out)) == {"spring", "autumn"}
    for split in ("spring", "autumn"):
        (sample,) = data.load("prepared", split, out)
        assert sample.labels.tolist() == [[1] * 8] * 2 + [[0] * 8] * 4


def test_a_damaged_shard_is_told(folder, tmp_path):
    out = prepare(Source("folder", folder), tmp_path / "out", workers=1, format="tfrecord")
    path = sorted(out.glob("kfcn_prepared-train*"))[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(KfcnError, match="ends in the middle of a record"):
        data.load("prepared", "train", out)
    (out / "kfcn.json").write_text(json.dumps({"classes": []}))
    with pytest.raises(DataError, match=r"kfcn\.json: cannot be read"):
        data.load("prepared", "train", out)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, r"cannot be read \(No such file"), (b"", "holds 0 records; expected")],
)
def test_a_shard_that_was_not_copied_whole_is_told(folder, tmp_path, content, words):
    """Empty, it was left out without a word."""
    out = prepare(Source("folder", folder), tmp_path / "out", workers=1, format="tfrecord")
    path = sorted(out.glob("kfcn_prepared-train*"))[0]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path.name}: {words}"):
        data.load("prepared", "train", out)


def test_two_passes_at_once_are_one_too_many(folder, tmp_path):
    with (
        Outputs(tmp_path / "out").lock(),
        pytest.raises(UsageError, match="another command is writing to"),
    ):
        prepare(Source("folder", folder), tmp_path / "out", workers=1)
    assert list((tmp_path / "out").iterdir()) == []
    assert contents(prepare(Source("folder", folder), tmp_path / "out", workers=1))


@pytest.mark.parametrize("format", ["array_record", "tfrecord"])
def test_a_pass_onto_a_full_disk_says_so_and_goes_on_later(folder, tmp_path, format):
    source = Source("folder", folder)
    with small_disk(tmp_path / "small", "40k") as small:
        with pytest.raises(WriteError) as caught:
            prepare(source, small / "out", ["train"], format, workers=1)
        assert str(caught.value).endswith(
            "could not be written: No space left on device; free some space"
        )
        assert str(caught.value).startswith(f"{small}/out/")
        assert not list(small.rglob(TEMPORARY))
        subprocess.run(["mount", "-o", "remount,size=4m", small], check=True)
        prepare(source, small / "out", ["train"], format, workers=1)
        assert len(data.load("prepared", "train", small / "out")) == 11


def test_labels_that_were_corrected_meanwhile_are_another_pass(folder, tmp_path):
    root, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(folder, root)
    prepare(Source("folder", root), out, workers=1)
    prepare(Source("folder", root), out, workers=1)  # the same files: nothing to do
    (root / "classes.txt").write_text("sea #102030\nsky\nland\n")
    with pytest.raises(UsageError, match=r"another pass \(other classes\)"):
        prepare(Source("folder", root), out, workers=1)
    shutil.copy2(folder / "classes.txt", root)
    file = root / "labels/val/p00.png"
    state = file.stat()
    file.write_bytes(file.read_bytes())  # of the same size
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000_000))
    with pytest.raises(UsageError, match=r"another pass \(other splits\)"):
        prepare(Source("folder", root), out, workers=1)


def test_a_part_of_a_split_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match=r"'train\[0/2\]': expected whole splits"):
        prepare(Source("folder", folder), tmp_path / "out", ["train[0/2]"])
    assert not (tmp_path / "out").exists()


def test_deep_pictures_are_stretched_as_the_training_split_asks(tmp_path):
    root = tmp_path / "data"
    for split, white in (("train", 4000), ("test", 900)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        image = np.linspace(0, white, 48 * 64).reshape(48, 64).astype(np.uint16)
        Image.fromarray(image).save(root / f"images/{split}/{split}.png")
        Image.fromarray(np.eye(48, 64, dtype=np.uint8)).save(root / f"labels/{split}/{split}.png")
    (root / "classes.txt").write_text("ground\nline\n")
    source = Source("folder", root)
    card = {"classes": ["ground", "line"], "reading": {"stretch": [0, 4095]}}
    expected = source.open_for(card, "test")[0].image
    prepare(source, tmp_path / "both", ["test", "train"], workers=1)
    both = Source("prepared", tmp_path / "both").open_for(card, "test")
    assert both.stretch == (0, 4095)
    np.testing.assert_array_equal(both[0].image, expected)
    prepare(source, tmp_path / "alone", ["test"], workers=1)
    prepare(source, tmp_path / "alone", ["test"], workers=1)  # the same pass, which is done
    alone = Source("prepared", tmp_path / "alone")
    assert alone.open("test").stretch == (0, 1023) and alone.open("test")[0].image.max() > 220
    with pytest.raises(UsageError, match=r"stored as 0 to 1023 became 0 to 255 .* expected 0 to"):
        alone.open_for(card, "test")


@pytest.mark.parametrize("split", ["day 2", "a.b", "x[1]", "all"])
def test_splits_whose_names_tfds_cannot_have_are_refused_before_any_work(folder, tmp_path, split):
    root = shutil.copytree(folder, tmp_path / "in")
    for kind in ("images", "labels"):
        (root / kind / "val").rename(root / kind / split)
    with pytest.raises(UsageError, match=re.escape(repr(split))):
        prepare(Source("folder", root), tmp_path / "out", ["train", split], workers=1)
    assert not (tmp_path / "out").exists()


def test_data_that_are_prepared_anew_are_opened_anew(folder, tmp_path):
    root, out = shutil.copytree(folder, tmp_path / "in"), tmp_path / "out"
    prepare(Source("folder", root), out, ["train"], workers=1)
    before = len(data.load("prepared", "train", out))
    shutil.rmtree(out)
    name = sorted((root / "images/train").iterdir())[0].name
    for file in [*(root / "images/train").glob(name), *(root / "labels/train").glob(name)]:
        file.unlink()
    prepare(Source("folder", root), out, ["train"], workers=1)
    again = data.load("prepared", "train", out)
    assert len(again) == before - 1 == sum(1 for _ in again)


def test_a_page_of_an_animation_is_stored_alone(tmp_path):
    pages = [Image.new("RGB", (8, 6), (60 * n, 0, 0)) for n in range(1, 4)]
    masks = [Image.new("L", (8, 6), n % 2) for n in range(1, 4)]
    for kind, several, suffix in (("images", pages, "png"), ("labels", masks, "tif")):
        path = tmp_path / f"in/{kind}/train/a.{suffix}"
        path.parent.mkdir(parents=True)
        several[0].save(path, save_all=True, append_images=several[1:])
    (tmp_path / "in/classes.txt").write_text("ground\nline\n")
    source = Source("folder", tmp_path / "in", reading=Reading(pages="all"))
    prepare(source, tmp_path / "out", ["train"], workers=1)
    found = data.load("prepared", "train", tmp_path / "out")
    assert [int(image[0, 0, 0]) for image, _, _ in found] == [60, 120, 180]
    assert [int(labels[0, 0]) for _, labels, _ in found] == [1, 0, 1]
