"""Bundles that are wrong, each in its own way: one line that names what is."""

import hashlib
import os
import shutil
import zlib
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from kfcn_mobile.bundle import BundleError, read_bundle
from kfcn_mobile.runner import Segmenter
from kfcn_mobile.validate import main
from PIL import Image
from shipping import describe, rewrite, tiny_bundle


@pytest.fixture
def bundle(tmp_path):
    return Path(shutil.copytree(tiny_bundle(), tmp_path / "bundle"))


def bad(change):
    return pytest.param(change, id=change.__name__)


def changed_model(bundle):
    with (bundle / "int8.tflite").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x00\x01\x02\x03")
    return "int8.tflite: changed since"


def missing_model(bundle):
    (bundle / "int8.tflite").unlink()
    return "int8.tflite: missing"


def not_a_model(bundle):
    rewrite(bundle, "int8.tflite", b"this is no flatbuffer at all")
    return "int8.tflite: not a TFLite file"


def damaged_model(bundle):
    rewrite(bundle, "int8.tflite", (bundle / "int8.tflite").read_bytes()[:2000])
    return "int8.tflite: LiteRT cannot load it"


def newer_format(bundle):
    describe(bundle, lambda info: info.update(format=2))
    return "bundle.json: bundle format 2"


def unreadable_image(bundle):
    rewrite(bundle, "golden/0001_image.png", b"no picture")
    return "0001_image.png: cannot be read"


def wrong_size_image(bundle):
    Image.new("RGB", (10, 10)).save(bundle / "golden/0001_image.png")
    rewrite(bundle, "golden/0001_image.png", (bundle / "golden/0001_image.png").read_bytes())
    return "0001_image.png: RGB picture of 10x10, expected RGB of 48x64"


def unreadable_margin(bundle):
    rewrite(bundle, "golden/0001_margin.npy", b"no array")
    return "0001_margin.npy: cannot be read"


def pickled_margin(bundle):
    np.save(bundle / "golden/0001_margin.npy", np.array([{}]), allow_pickle=True)
    rewrite(bundle, "golden/0001_margin.npy", (bundle / "golden/0001_margin.npy").read_bytes())
    return "0001_margin.npy: cannot be read"


def outside(bundle):
    describe(bundle, lambda info: info["files"].update({"../secret": "0" * 64}))
    return "'../secret' points outside"


def unlisted_model(bundle):
    describe(bundle, lambda info: info["files"].pop("int8.tflite"))
    return "no sha256 for int8.tflite"


def no_description(bundle):
    (bundle / "bundle.json").unlink()
    return "bundle.json: no such file"


def description_is_no_json(bundle):
    (bundle / "bundle.json").write_text("{")
    return "bundle.json: cannot be read"


def description_lacks_classes(bundle):
    describe(bundle, lambda info: info.pop("classes"))
    return "bundle.json: classes is missing; expected a list of 1 to 255 different names"


def nested_too_deep(bundle):
    (bundle / "bundle.json").write_text("[" * 200_000 + "]" * 200_000)
    return "bundle.json: cannot be read (its values are nested too deeply)"


def description_is_a_pipe(bundle):
    (bundle / "bundle.json").unlink()
    os.mkfifo(bundle / "bundle.json")
    return "bundle.json: no such file"


def description_is_a_list(bundle):
    (bundle / "bundle.json").write_text("[1, 2]")
    return "bundle.json: expected a JSON object, received [1, 2]"


def margin_of(value):
    def change(bundle):
        file = bundle / "golden/0001_margin.npy"
        margin = np.load(file)
        margin[3, 4] = value
        np.save(file, margin)
        rewrite(bundle, "golden/0001_margin.npy", file.read_bytes())
        return "0001_margin.npy: a margin is not a number of 0 or more"

    change.__name__ = f"margin_of_{value}"
    return change


def margin_that_the_file_cannot_hold(bundle):
    """Its header asks for two terabytes."""
    head = "{'descr': '<f2', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    head = head.ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()
    rewrite(bundle, "golden/0001_margin.npy", content)
    return "0001_margin.npy: cannot be read"


def keras_labels_ignore(bundle):
    file = bundle / "golden/0001_labels.png"
    Image.new("L", (64, 48), 255).save(file)
    rewrite(bundle, "golden/0001_labels.png", file.read_bytes())
    return "0001_labels.png: a label is not below 3"


def endless_picture(bundle):
    """A bomb: little to read, four gigabytes to decode."""
    file = bundle / "golden/0001_image.png"
    with file.open("r+b") as opened:
        opened.seek(16)
        header = (36_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
        opened.write(header + zlib.crc32(b"IHDR" + header).to_bytes(4, "big"))
    rewrite(bundle, "golden/0001_image.png", file.read_bytes())
    return "0001_image.png: "


def link_to_the_outside(bundle):
    (bundle.parent / "secret").write_text("secret")
    (bundle / "golden/extra").symlink_to(bundle.parent / "secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    describe(bundle, lambda info: info["files"].update({"golden/extra": digest}))
    return "golden/extra: is a link that points outside"


def folder_that_is_a_link(bundle):
    (bundle / "golden").rename(bundle.parent / "elsewhere")
    (bundle / "golden").symlink_to(bundle.parent / "elsewhere")
    return "is a link that points outside"


def half_a_character_as_a_name(bundle):
    describe(bundle, lambda info: info["golden"][1].update(name="a\ud800"))
    return "bundle.json: golden[1].name: expected a text"


def two_images_of_one_name(bundle):
    describe(bundle, lambda info: info["golden"][1].update(name=info["golden"][0]["name"]))
    return "bundle.json: golden: two images with the name 'val/"


def address_as_a_name(bundle):
    name = "http://example.org/x.tflite"
    describe(bundle, lambda info: info["files"].update({name: "0" * 64}))
    return f"{name!r} points outside the folder"


def makes_litert_crash(bundle):
    """A right hash, a sound flatbuffer, and a segmentation fault when it is prepared."""
    from ai_edge_litert import schema_py_generated as schema

    content = (bundle / "int8.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for tensor in model.subgraphs[0].tensors:
        scale = getattr(tensor.quantization, "scale", None)
        if tensor.type == schema.TensorType.INT8 and scale is not None and len(scale) == 1:
            tensor.quantization.scale = [0.0]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    rewrite(bundle, "int8.tflite", bytes(builder.Output()))
    return "int8.tflite: LiteRT crashed (SIG"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        bad(change)
        for change in (
            changed_model,
            missing_model,
            not_a_model,
            damaged_model,
            newer_format,
            unreadable_image,
            wrong_size_image,
            unreadable_margin,
            pickled_margin,
            outside,
            unlisted_model,
            no_description,
            description_is_no_json,
            description_lacks_classes,
            nested_too_deep,
            description_is_a_pipe,
            description_is_a_list,
            margin_of(float("nan")),
            margin_of(-1),
            margin_that_the_file_cannot_hold,
            keras_labels_ignore,
            endless_picture,
            link_to_the_outside,
            folder_that_is_a_link,
            half_a_character_as_a_name,
            two_images_of_one_name,
            address_as_a_name,
            makes_litert_crash,
        )
    ],
)
def test_bad_bundle_is_one_line_and_exit_code_2(bundle, change, capsys):
    expected = change(bundle)
    assert main([str(bundle), "--mode", "int8", "--runs", "0"]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("kfcn-validate")]
    assert len(lines) == 1 and expected in lines[0]
    assert "Traceback" not in captured.err


WRONG = {
    "format": ["1", None, True, 1.0],
    "size": [[48], [48, "64"], [0, 64], [48.0, 64.0], "4864", {"0": 48, "1": 64}],
    "classes": [[], "abc", ["a", ["b"], "c"], ["a", "", "c"], ["a", "a", "c"], ["a"] * 256],
    "palette": [[[1, 2, 3]], [[1, 2, 300]] * 3, [[1, 2]] * 3, [[1, 2, 2.5]] * 3, [1, 2, 3]],
    "files": [[], {"int8.tflite": 3}, "int8.tflite"],
    "models": [[], ["int8.tflite"], {}, [{"file": ["int8.tflite"], "mode": "int8"}],
               [{"file": "int8.tflite", "mode": ["int8"]}],
               [{"file": "int8.tflite", "mode": "int4"}],
               [{"file": "int8.tflite", "mode": "int8"}] * 2],
    "golden": [[], [3], [{"name": ["x"]}]],
    "source": [["a"], "a"],
    "scores": [{"a": 1}, [{"file": 3, "mode": "int8"}]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG.items() for value in values]
)
def test_a_value_of_a_wrong_type_is_named(bundle, key, value):
    describe(bundle, lambda info: info.update({key: value}))
    with pytest.raises(BundleError, match=rf"^\S+/bundle\.json: {key}[^\n]*$"):
        read_bundle(bundle)


def test_an_infinite_margin_is_sure(bundle):
    """Half precision ends at 65504: a net can be surer than that."""
    file = bundle / "golden/0001_margin.npy"
    margin = np.load(file)
    margin[3, 4] = np.inf
    np.save(file, margin)
    rewrite(bundle, "golden/0001_margin.npy", file.read_bytes())
    assert read_bundle(bundle).golden[1].margin[3, 4] == np.inf


def test_a_link_within_the_bundle_is_followed(bundle):
    (bundle / "int8.tflite").rename(bundle / "golden/other.tflite")
    (bundle / "int8.tflite").symlink_to("golden/other.tflite")
    assert read_bundle(bundle).models[1]["file"] == "int8.tflite"


def test_an_error_while_it_runs_names_the_file(bundle):
    segmenter = Segmenter(bundle / "int8.tflite")

    class Failing:
        def set_tensor(self, *_):
            pass

        def invoke(self):
            raise RuntimeError("Node number 3 failed to invoke.\nmore")

    segmenter._interpreter = Failing()
    with pytest.raises(BundleError, match=r"int8.tflite: LiteRT cannot run it \(Node number 3"):
        segmenter.run(np.zeros((48, 64, 3), np.uint8))


def test_a_file_of_another_size_is_refused(bundle):
    with pytest.raises(BundleError, match=r"takes \(1, 48, 64, 3\), expected \(1, 64, 64, 3\)"):
        Segmenter(bundle / "int8.tflite", (64, 64))
