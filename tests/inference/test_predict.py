"""Predictions as polygons and by Apache Beam, by a net that can be followed by hand."""

import json
import os
import shutil
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from small_nets import save_colour_run, u_net

from kfcn import data, predict
from kfcn.commands import predict as command
from kfcn.errors import UsageError
from kfcn.inference.beam import DEAD_LETTER, predict_by_beam
from kfcn.inference.predict import Predictions, shares
from kfcn.inference.segment import segment
from kfcn.saved import save_model

NAMES = ("background", "red", "green")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A net that sees the class in the colour: dark, red or green."""
    folder = tmp_path_factory.mktemp("run")
    save_colour_run(folder, dict(zip(NAMES, ((0, 0, 0), (255, 0, 0), (0, 255, 0)), strict=True)))
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Four pictures with a ring, a disc in its hole and blobs; the labels of each are known."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    truth = {}
    for index in range(4):
        height, width = 60 + 7 * index, 90 - 5 * index
        y, x = np.mgrid[:height, :width]
        radius = np.hypot(y - 30, x - 35 - index)
        labels = np.zeros((height, width), np.uint8)
        labels[(radius < 25) & (radius > 14)] = 1
        labels[radius < 7] = 2
        labels[height - 12 :, width - 20 :] = 2
        image = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0)], np.uint8)[labels]
        Image.fromarray(image).save(folder / f"p{index}.png")
        truth[f"p{index}"] = labels
    return folder, truth


def test_polygons_are_read_again_by_folder(run, pictures, tmp_path):
    folder, truth = pictures
    result = predict(run, folder, tmp_path / "out", format="labelme")
    assert [path.name for path in result.written] == [f"p{i}.json" for i in range(4)]
    content = json.loads((tmp_path / "out/p0.json").read_text())
    assert content["imagePath"] == "../pictures/p0.png"
    labels_of = [shape["label"] for shape in content["shapes"]]
    assert sorted(labels_of) == ["background", "green", "green", "red"]  # one is the ring's hole
    found = {}
    for split in ("train", "val"):
        dataset = data.load("folder", split, tmp_path / "out")
        assert dataset.classes.names == NAMES
        assert dataset.classes.palette[1] == (255, 0, 0)
        found |= {sample.name.split("/")[-1][:2]: sample for sample in dataset}
    for name, labels in truth.items():
        assert (found[name].labels == labels).mean() > 0.985
        hole = (labels == 0) & (found[name].labels == 0)
        assert hole[30, 35 + int(name[1]) + 10]
    with pytest.raises(UsageError, match="format 'xml': expected one of png, labelme"):
        predict(run, folder, tmp_path / "out", format="xml")


def test_patterns_and_lists_name_images_too(run, pictures, tmp_path):
    folder, _ = pictures
    (tmp_path / "list.txt").write_text(f"{folder}/p0.png\n\n{folder}/p3.png\n")
    result = predict(run, tmp_path / "list.txt", tmp_path / "a")
    assert [path.name for path in result.written] == ["p0.png", "p3.png"]
    result = predict(run, f"{folder}/p[12].png", tmp_path / "b")
    assert [path.name for path in result.written] == ["p1.png", "p2.png"]
    with pytest.raises(UsageError, match="no file is named like this"):
        predict(run, f"{folder}/q*.png", tmp_path / "c")


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def test_links_to_pictures_of_one_name_have_results_of_their_own(run, tmp_path):
    pytest.importorskip("apache_beam")
    (tmp_path / "links").mkdir()
    for index, name in enumerate("ab", start=1):
        file = tmp_path / f"{index}/img.png"
        file.parent.mkdir()
        Image.new("RGB", (30 * index, 40)).save(file)
        (tmp_path / f"links/{name}.png").symlink_to(file)
    for images, out in (("links", "folder"), ("links/a.png", "file")):
        predict_by_beam(run, tmp_path / images, tmp_path / out)
        predict(run, tmp_path / images, tmp_path / f"{out}-here")
        here, by_beam = (
            {path.name for path in (tmp_path / folder).glob("[!.]*.*")}
            for folder in (f"{out}-here", out)
        )
        assert here == by_beam and "a.png" in here


@pytest.mark.slow
@pytest.mark.parametrize("format", ["png", "labelme"])
@pytest.mark.parametrize("by_beam", [False, True], ids=["", "beam"])
def test_pictures_are_never_replaced(run, pictures, tmp_path, format, by_beam):
    folder, _ = pictures
    Image.new("RGB", (9, 7)).save(folder / "q.jpg")
    Image.new("RGB", (9, 7), "red").save(folder / "q_overlay.jpg")
    (tmp_path / "link").symlink_to(folder)
    before = content(folder)
    refused = []
    for images, out in (
        (folder, folder),
        (folder, tmp_path / "link"),
        (tmp_path / "link" / "p1.png", folder),
        (folder / "q.jpg", folder),  # its overlay is a picture of the user's
    ):
        call = [run, images, out]
        for options in ({}, {"overwrite": True}):
            try:
                if by_beam:
                    pytest.importorskip("apache_beam")
                    predict_by_beam(*call, format=format, **options)
                else:
                    predict(*call, format=format, **options)
            except UsageError as error:
                assert "one of the inputs" in str(error) or "was not written by kfcn" in str(error)
                refused.append((call[1:], options))
            assert {k: v for k, v in content(folder).items() if k in before} == before or (
                options and images == folder / "q.jpg"
            )
            if format == "labelme":  # whose results are JSON
                for file in folder.glob("*.json"):
                    file.unlink()
        (folder / "q_overlay.jpg").write_bytes(before["q_overlay.jpg"])
    # With --overwrite the foreign overlay may go; the pictures themselves never.
    assert len(refused) == (7 if format == "png" else 0)


def test_a_single_picture_is_one_in_words(run, pictures, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    shutil.copy(sorted(pictures[0].glob("*.*"))[0], tmp_path / "one")
    (tmp_path / "one/notes.pdf").write_text("")
    assert command.main([str(run), str(tmp_path / "one"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"1 picture segmented into {tmp_path / 'out'}")
    assert f"{tmp_path / 'one'}: left out 1 file of another kind: notes.pdf" in shown.err


def test_what_a_person_has_corrected_is_kept(run, pictures, tmp_path, capsys):
    folder, _ = pictures
    out = tmp_path / "labels"
    call = [str(run), str(folder), "--out", str(out), "--format", "labelme"]
    assert command.main(call) == 0
    assert capsys.readouterr().out == f"4 pictures segmented into {out}\n"
    corrected = json.loads((out / "p1.json").read_text())
    corrected["shapes"].append({"label": "person", "points": [[1, 1], [9, 1], [9, 9]]})
    (out / "p1.json").write_text(json.dumps(corrected))
    with (out / "classes.txt").open("a") as file:
        file.write("person #0000ff\n")
    (out / "p2.json").unlink()
    (out / "p3.json").write_text(json.dumps({"shapes": []}))  # from before any manifest
    manifest = out / ".kfcn.jsonl"
    lines = [line for line in manifest.read_text().splitlines() if "p3" not in line]
    manifest.write_text("\n".join(lines))
    before = content(out)
    assert command.main(call) == 0
    shown = capsys.readouterr()
    assert "2 pictures segmented" in shown.out and "2 kept" in shown.out and "p1.json" in shown.out
    after = content(out)
    for name in ("p1.json", "p3.json", "classes.txt", "p0.json"):
        assert after[name] == before[name]
    assert "p2.json" in after
    assert command.main([*call, "--overwrite"]) == 0
    assert "4 pictures segmented" in capsys.readouterr().out
    assert b"person" not in (out / "p1.json").read_bytes()
    assert b"person" not in (out / "classes.txt").read_bytes()
    (out / "classes.txt").write_text("background\nred\n")
    assert command.main(call) == 2
    assert "classes.txt lacks green" in capsys.readouterr().err


def test_a_corrected_label_map_is_kept_and_a_foreign_one_refused(run, pictures, tmp_path):
    folder, _ = pictures
    out = tmp_path / "out"
    predict(run, folder, out)
    with Image.open(out / "p0.png") as picture:
        picture.putpixel((0, 0), 2)
        picture.save(out / "p0.png")
    before = content(out)
    (out / "p1_overlay.jpg").unlink()
    result = predict(run, folder, out)
    assert [path.name for path in result.kept] == ["p0.png"]
    assert [path.name for path in result.written] == ["p1.png", "p2.png", "p3.png"]
    after = content(out)
    assert {k: v for k, v in after.items() if k != ".kfcn.jsonl"} == {
        k: v for k, v in before.items() if k != ".kfcn.jsonl"
    }
    (out / ".kfcn.jsonl").unlink()  # then nobody can say who wrote them
    with pytest.raises(UsageError, match=r"p0_overlay\.jpg already exists"):
        predict(run, folder, out)
    assert content(out) == {k: v for k, v in after.items() if k != ".kfcn.jsonl"}


def test_a_result_that_cannot_be_written_is_one_line_and_the_others_are_done(
    run, pictures, tmp_path, capsys
):
    folder, _ = pictures
    longest = "n" * 251  # with .png the longest name that there is; with _overlay.jpg too long
    (folder / "p3.png").rename(folder / f"{longest}.png")
    out = tmp_path / "out"
    assert command.main([str(run), str(folder), "--out", str(out)]) == 1
    shown = capsys.readouterr()
    assert shown.out == f"3 pictures segmented into {out}\n"
    lines = [line for line in shown.err.splitlines() if line.startswith("kfcn-predict:")]
    assert len(lines) == 1 and "could not be written: File name too long" in lines[0]
    assert len(list(out.glob("[!.]*"))) == 6


def test_a_size_that_a_net_cannot_compute_is_one_line_and_the_others_are_done(tmp_path, capsys):
    """A U-Net joins maps of several strides, and takes sizes alone that all of them divide."""
    keras.utils.set_random_seed(0)
    net, folder = u_net(), tmp_path / "pictures"
    folder.mkdir()
    net.save(tmp_path / "net.keras")
    rng = np.random.default_rng(0)
    for name, size in (("a", (16, 24)), ("b", (17, 23)), ("c", (18, 30)), ("d", (19, 24))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{name}.png")
    out = tmp_path / "out"
    assert command.main([str(tmp_path / "net.keras"), str(folder), "--out", str(out)]) == 1
    told = capsys.readouterr().err
    for size in ("17x23", "19x24"):  # while it is traced for one size, and when it is run
        assert f"cannot compute a picture of {size}" in told
    for name in "ac":
        image = np.asarray(Image.open(folder / f"{name}.png"))
        expected = np.asarray(net(image[None].astype("float32"))).argmax(-1)[0]
        assert len(np.unique(expected)) > 1
        np.testing.assert_array_equal(Image.open(out / f"{name}.png"), expected)
    assert not (out / "b.png").exists() and not (out / "d.png").exists()


def test_a_limit_that_is_none_is_no_fault_of_the_pictures(run, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("KFCN_IMAGE_MEMORY", "2 GB")
    with pytest.raises(UsageError, match="KFCN_IMAGE_MEMORY='2 GB': expected a number of bytes"):
        predict(run, pictures[0], tmp_path / "out")


def test_two_spellings_of_one_name_are_one_name(run, pictures, tmp_path):
    folder, _ = pictures
    (folder / "p0.png").rename(folder / "M\u00fcll.png")
    (folder / "p1.png").rename(folder / "Mu\u0308ll.png")
    with pytest.raises(UsageError, match="would both be written to"):
        predict(run, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_stray_pixels_are_not_listed():
    assert shares({"background": 9995, "red": 5}) == "background 100.0 %, red 0.1 %"
    assert shares({"background": 9996, "red": 4}) == "background only"
    assert shares({"void": 9000, "Unlabelled": 1000}) == "background only"
    assert shares({"red": 5000, "green": 4996, "background": 4}) == "red 50.0 %, green 50.0 %"
    pixels = {"few": {"background": 9996, "red": 4}, "more": {"background": 9995, "red": 5}}
    assert Predictions([], {}, pixels=pixels).background_only == ["few"]


def test_the_listing_names_what_is_seen(run, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    image = np.zeros((10, 20, 3), np.uint8)
    Image.fromarray(image).save(folder / "empty.png")
    image[:5, :10] = (200, 0, 0)
    Image.fromarray(image).save(folder / "quarter.png")
    image = np.full((20, 10, 3), (0, 200, 0), np.uint8)
    Image.fromarray(image).save(folder / "whole.png")
    call = [str(run), str(folder), "--out", str(tmp_path / "out")]
    assert command.main([*call, "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}/empty.png: background only",
        f"{folder}/quarter.png: background 75.0 %, red 25.0 %",
        f"{folder}/whole.png: green 100.0 %",
        "all together: background 58.3 %, green 33.3 %, red 8.3 %",
        f"3 pictures segmented into {tmp_path / 'out'}",
    ]
    assert command.main(call) == 0
    assert capsys.readouterr().out == (
        f"3 pictures segmented into {tmp_path / 'out'}; 1 of them background only: "
        f"{folder}/empty.png\n"
    )


def test_ctrl_c_leaves_nothing_half(run, pictures, tmp_path, monkeypatch):
    folder, _ = pictures
    seen = []

    def interrupted(net, image):
        seen.append(image)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return segment(net, image)

    monkeypatch.setattr("kfcn.inference.predict.segment", interrupted)
    # So that the net computes in the main thread, which Ctrl-C interrupts.
    monkeypatch.setattr("kfcn.inference.predict.AT_ONCE", 1)
    with pytest.raises(KeyboardInterrupt):
        predict(run, folder, tmp_path / "out")
    for path in (tmp_path / "out").glob("[!.]*"):
        Image.open(path).load()
    assert not [p.name for p in (tmp_path / "out").iterdir() if ".part" in p.name]
    assert not list((tmp_path / "out").glob("p[23]*"))
    monkeypatch.undo()
    assert len(predict(run, folder, tmp_path / "out").written) == 4


@pytest.mark.parametrize("named", ["folder", "pattern"])
def test_results_beside_the_pictures_are_no_pictures(run, pictures, named, capsys):
    """`--out` is the folder of the pictures: the same command works again."""
    folder, truth = pictures
    for path in folder.iterdir():
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    images = folder if named == "folder" else str(folder / "p*.*")
    for _ in range(2):
        assert command.main([str(run), str(images), "--out", str(folder)]) == 0
        assert "4 pictures segmented" in capsys.readouterr().out
    for stem, labels in truth.items():
        np.testing.assert_array_equal(np.asarray(Image.open(folder / f"{stem}.png")), labels)
    assert command.main([str(run), str(folder), "--out", str(folder)]) == 0
    if named == "folder":
        assert "left out 8 label maps and overlays that kfcn has written" in capsys.readouterr().err
    # A picture of one's own of such a name is one.
    Image.new("RGB", (30, 20)).save(folder / "more_overlay.jpg")
    result = predict(run, folder, folder.parent / "out")
    assert result.written[0].name == "more_overlay.png"


@pytest.mark.parametrize("format", ["voc", "coco"])
def test_what_belongs_to_all_is_there_when_the_command_is_stopped(run, pictures, tmp_path, format):
    folder, _ = pictures

    def stop(path, counts):
        if path.stem == "p1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(run, folder, tmp_path / "out", format=format, done=stop)
    if format == "voc":
        assert "red:255,0,0::" in (tmp_path / "out/labelmap.txt").read_text()
        listed = (tmp_path / "out/ImageSets/Segmentation/default.txt").read_text().split()
    else:
        content = json.loads((tmp_path / "out/annotations/instances_default.json").read_text())
        listed = sorted(image["file_name"].removesuffix(".png") for image in content["images"])
    assert listed[:2] == ["p0", "p1"]
    assert len(predict(run, folder, tmp_path / "out", format=format).written) == 4


def test_a_name_that_is_no_line_of_text_stands_in_no_list_of_voc(run, pictures, tmp_path):
    folder, _ = pictures
    (folder / "p0.png").rename(folder / "p\n0.png")
    with pytest.raises(UsageError, match=r"p\\n0.png' cannot stand in a list of names"):
        predict(run, folder, tmp_path / "out", format="voc")
    assert len(predict(run, folder, tmp_path / "png").written) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are text")
def test_beam_takes_names_that_are_no_text(run, pictures, tmp_path):
    pytest.importorskip("apache_beam")
    folder, truth = pictures
    odd = os.fsdecode(b"p\xfc")
    (folder / "p0.png").rename(folder / f"{odd}.png")
    (folder / f"{odd}b.png").write_bytes(b"no picture")
    result, _ = predict_by_beam(run, folder, tmp_path / "out")
    assert len(result.written) == 4 and [p.name for p in result.failed] == [f"{odd}b.png"]
    with Image.open(tmp_path / "out" / f"{odd}.png") as written:
        np.testing.assert_array_equal(np.asarray(written), truth["p0"])


TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.mark.parametrize(
    "flags",
    [[], ["--direct_num_workers=2"], pytest.param(TWO_PROCESSES, marks=pytest.mark.long)],
    ids=["one", "threads", "processes"],
)
def test_beam_writes_the_same_bytes_and_goes_on_where_it_stopped(run, pictures, tmp_path, flags):
    pytest.importorskip("apache_beam")
    folder, truth = pictures
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    plain = predict(run, folder, tmp_path / "plain")
    result, skipped = predict_by_beam(run, folder, tmp_path / "beam", flags=flags)
    assert (len(result.written), skipped) == (4, 0)
    assert {p.name: r for p, r in result.failed.items()}.keys() == {"broken.jpg"}
    letters = (tmp_path / "beam" / DEAD_LETTER).read_text().splitlines()
    assert len(letters) == 1 and "broken.jpg" in json.loads(letters[0])["image"]
    assert "cannot be read as an image" in json.loads(letters[0])["reason"]
    for path in plain.written:
        for name in (path.name, f"{path.stem}_overlay.jpg"):
            assert (tmp_path / "beam" / name).read_bytes() == (path.parent / name).read_bytes()
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), truth[path.stem])
    times = {p: (tmp_path / f"beam/{p}.png").stat().st_mtime_ns for p in ("p0", "p1", "p3")}
    (tmp_path / "beam/p2.png").unlink()
    result, skipped = predict_by_beam(run, folder, tmp_path / "beam")
    assert ([path.name for path in result.written], skipped) == (["p2.png"], 3)
    assert all((tmp_path / f"beam/{p}.png").stat().st_mtime_ns == t for p, t in times.items())
    assert segment(keras.saving.load_model(run / "model.keras"), np.zeros((2, 2, 3))).max() == 0


def test_beam_writes_anew_what_another_model_or_a_crf_has_made(run, pictures, tmp_path):
    pytest.importorskip("apache_beam")
    folder, truth = pictures
    out = tmp_path / "out"

    def labels():
        with Image.open(out / "p0.png") as written:
            return np.asarray(written)

    assert predict_by_beam(run, folder, out)[1] == 0
    assert predict_by_beam(run, folder, out)[1] == 4
    other = shutil.copytree(run, tmp_path / "other")
    model = keras.saving.load_model(other / "model.keras")
    model.layers[-1].set_weights([-weight for weight in model.layers[-1].get_weights()])
    save_model(model, other / "model.keras")
    result, skipped = predict_by_beam(other, folder, out)
    assert (len(result.written), skipped) == (4, 0)
    assert (labels() != truth["p0"]).mean() > 0.5
    assert predict_by_beam(other, folder, out)[1] == 4
    # What `kfcn.predict` wrote, nobody knows by which model.
    predict(run, folder, out)
    assert predict_by_beam(run, folder, out)[1] == 0
    np.testing.assert_array_equal(labels(), truth["p0"])
    assert predict_by_beam(run, folder, out, crf=True)[1] == 0
