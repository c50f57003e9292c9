"""Settings: what each may be, whoever gives it: a flag, Python or a stored `config.json`."""

import dataclasses
import json
import math

import numpy as np
import pytest

from kfcn.commands import train as command
from kfcn.errors import KfcnError, UsageError
from kfcn.nets.weights import shipped_weights
from kfcn.options import Checked, Range, checked, kinds, option
from kfcn.training.resolution import from_stored, resolve
from kfcn.training.run_folder import RunFolder
from kfcn.training.settings import Conduct, Settings, reference

REFUSED = [
    ("batch_size", 0, "a whole number of at least 1"),
    ("batch_size", 2.5, "a whole number of at least 1"),
    ("batch_size", True, "a whole number of at least 1"),
    ("epochs", "3", "a whole number of at least 1"),
    ("seed", -1, "a whole number of at least 0 and at most 4294967295"),
    ("seed", 2**32, "a whole number of at least 0 and at most 4294967295"),
    ("learning_rate", math.nan, "a number above 0"),
    ("learning_rate", -1.0, "a number above 0"),
    ("learning_rate", 10**400, "a number above 0"),
    ("momentum", 1.0, "a number of at least 0 and below 1"),
    ("weight_decay", math.inf, "a number of at least 0"),
    ("iou_loss", -1.0, "a number of at least 0"),
    ("scale", (1, math.inf), "a smallest and a greatest number of 0.05 to 20"),
    ("scale", (2, 1), "a smallest and a greatest number of 0.05 to 20"),
    ("scale", (1.0,), "a smallest and a greatest number of 0.05 to 20"),
    ("scale", 1.0, "a smallest and a greatest number of 0.05 to 20"),
    ("scale", "12", "a smallest and a greatest number of 0.05 to 20"),
    ("crop", (24, 40), "height and width of at least 32 pixels, or 0 0 for whole pictures"),
    ("crop", (0, 40), "height and width of at least 32 pixels, or 0 0 for whole pictures"),
    ("crop", (64.5, 64), "height and width of at least 32 pixels, or 0 0 for whole pictures"),
    ("class_weights", "log", "one of none, median, sqrt"),
    ("output_stride", 4, "one of 8, 16, 32"),
    ("arch", "fcn64s", "one of fcn32s, fcn16s"),
    ("arch", ["fcn8s"], "one of fcn32s, fcn16s"),
    ("backbone", "vgg61", "one of vgg16, mobilenet_v2"),
    ("data", "moon", "one of scenes, camvid"),
    ("data", "tfds:", "one of scenes, camvid"),
    ("data_dir", "", "a text"),
    ("data_dir", "a\0b", "a text"),
    ("data_dir", b"a", "a text"),
    ("align", 1, "true or false"),
    ("align", "false", "true or false"),
    ("crf_options", {"theta_alpha": math.nan}, "numbers by name"),
    ("crf_options", [1], "numbers by name"),
]


@pytest.mark.parametrize(("name", "value", "expected"), REFUSED)
def test_a_value_that_is_none_is_refused_in_one_line(name, value, expected):
    for give in (lambda: resolve(**{name: value}), lambda: Settings(**{name: value})):
        with pytest.raises(UsageError) as caught:
            give()
        message = str(caught.value)
        assert message.startswith(f"{name} ") and f": expected {expected}" in message
        assert "\n" not in message and len(message) < 300


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("epochs", 10.0, "10.0"),
        ("epochs", np.float64(10), "10.0"),
        ("epochs", "10", "'10'"),
        ("crop", (64.0, 64), "64.0 64"),
        ("crop", ["64", 64], "'64' 64"),
        ("learning_rate", -1e-5, "-1e-05"),
    ],
)
def test_a_value_is_shown_as_what_it_is(name, value, shown):
    with pytest.raises(UsageError) as caught:
        resolve(**{name: value})
    assert str(caught.value).startswith(f"{name} {shown}: expected ")


@pytest.mark.parametrize(("name", "value", "expected"), REFUSED)
def test_a_stored_value_that_is_none_is_refused(name, value, expected, tmp_path):
    if isinstance(value, bytes):
        pytest.skip("JSON has no bytes")
    run = RunFolder(tmp_path)
    stored = dataclasses.asdict(Settings()) | {name: value}
    run.config.write_text(json.dumps({"format": 2, "settings": stored}))
    with pytest.raises(KfcnError, match=r"config\.json is damaged \(" + name) as caught:
        run.stored_settings()
    assert f"expected {expected}" in str(caught.value)


@pytest.mark.parametrize(
    "args",
    [
        ("--seed", "-1"),
        ("--seed", "1.0"),
        ("--scale", "1", "inf"),
        ("--scale", "x", "1"),
        ("--learning-rate", "nan"),
        ("--epochs", "9" * 5000),
        ("--arch", "fcn64s"),
        ("--output-stride", "4"),
        ("--save-minutes", "-1"),
        ("--keep", "0"),
        ("--strategy", "two"),
        ("--crop", "64"),
        ("--no-such-flag",),
    ],
)
def test_a_flag_that_is_none_is_refused_in_one_line(args, capsys):
    with pytest.raises(SystemExit) as caught:
        command.parser().parse_args(args)
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith(f"kfcn-train: error: {args[0]}") or args[0] in line
    assert line.count("\n") == 1 and len(line) < 400


def test_values_come_in_the_type_of_the_field():
    given = {"crop": [64, np.int64(96)], "scale": (1, 2), "power": 2, "ema": np.float32(0.5)}
    settings = Settings(**given)
    assert (settings.crop, settings.scale) == ((64, 96), (1.0, 2.0))
    assert [type(v) for v in (*settings.crop, *settings.scale, settings.power, settings.ema)] == [
        int, int, float, float, float, float
    ]  # fmt: skip
    assert Settings(crop=(0, 0)).window is None


def test_what_one_may_not_have_together_is_refused():
    for given, told in (
        ({"arch": "convnet", "alpha": 0.35}, "alpha: convnet has no such option"),
        ({"arch": "dilated", "learn_last": True}, "learn_last: dilated on mobilenet_v2 has no"),
        ({"arch": "fcn32s", "learn_middle": False}, "learn_middle: fcn32s on mobilenet_v2 has no"),
        ({"backbone": "resnet50", "fc_filters": 8}, "fc_filters: fcn8s on resnet50 has no"),
        ({"arch": "heatmap", "output_stride": 16}, "it cannot be chosen for the arch heatmap"),
        ({"arch": "convnet", "weights": "imagenet"}, "convnet has no backbone"),
        ({"crf": True}, "name its run with --init-from"),
        ({"init_from": "r", "weights": "w.h5"}, r"weights w\.h5: the net starts from r; leave one"),
        ({"momentum": 0.5}, "momentum: adamw has no momentum to set; --optimizer sgd has"),
        ({"speed": 3}, "unknown setting speed; expected recipe, arch"),
    ):
        with pytest.raises(UsageError, match=told):
            resolve(**given)


def test_defaults_follow_the_data():
    assert resolve().weights == "none"
    assert resolve(data="camvid", data_dir="x").weights == "imagenet"
    assert resolve(data="camvid", data_dir="x").crop == (352, 480)
    assert resolve(backbone="resnet50").alpha is None
    assert resolve(output_stride=16).arch == "dilated"


def test_every_flag_gives_its_setting():
    """The flag of every field, with a value that is not the default."""
    others = {
        "recipe": "scenes", "arch": "fcn2s", "backbone": "vgg16", "output_stride": "16",
        "alpha": "0.5", "fc_filters": "8", "weights": "none", "init_from": "runs/a",
        "data": "tfds:a/b", "data_dir": "d", "classes": "voc", "train_split": "a",
        "val_split": "b", "crop": "64 96", "scale": "0.5 1", "batch_size": "3", "epochs": "2",
        "optimizer": "sgd", "learning_rate": "0.5", "power": "2", "momentum": "0.5",
        "weight_decay": "0", "ema": "0.5", "class_weights": "sqrt", "iou_loss": "1", "seed": "9",
        "gated_crf": "0.1",
        "precision": "mixed_float16", "strategy": "one", "cpu_replicas": "2",
        "save_minutes": "0.5", "keep": "1", "skip_bad": "2",
        "ignore": "none", "pages": "all", "unlabelled": "ignore",
        "unlabelled_dir": "more", "augment": "strong",
    }  # fmt: skip
    for cls in (Settings, Conduct):
        for name, kind in kinds(cls).items():
            if kind.flag is None:
                continue
            words = [kind.flag, *others.get(name, "").split()]
            found = getattr(command.parser().parse_args(words), name)
            found = tuple(found) if isinstance(found, list) else found
            assert found != kind.default and found is not None
            assert getattr(cls(**{name: found}), name) == found
    assert command.parser().parse_args(["--whole"]).crop == (0, 0)
    assert command.parser().parse_args(["--fix-middle"]).learn_middle is False
    assert not {v for k, v in vars(command.parser().parse_args([])).items()} - {None}


def test_the_reference_has_a_row_for_every_setting():
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [f.name for f in dataclasses.fields(Settings)]
    (crop,) = (row for row in rows if row.startswith("| `crop`"))
    assert "`--crop`, `--whole`" in crop
    assert "320 320, 128 128 for scenes, 352 480 for camvid" in crop


def test_a_field_is_all_that_an_option_needs():
    """Flag, check and default of a class of options that kfcn does not know."""
    from kfcn.commands._cli import Parser, add_flags

    @dataclasses.dataclass(frozen=True)
    class Cooking(Checked):
        minutes: float = option(5.0, "how long", range=Range(above=0, most=60))
        salt: bool = option(True, "leave it out", flag="--no-salt")
        pot: str | None = option(None, "which one", choices=("small", "large"))

    cli = Parser(prog="cook")
    add_flags(cli, Cooking)
    args = vars(cli.parse_args(["--minutes", "7", "--no-salt"]))
    assert Cooking(**checked(Cooking, args)) == Cooking(7.0, False, None)
    text = " ".join(cli.format_help().split())
    assert "--minutes X how long (default: 5)" in text
    assert "--pot small|large which one" in text
    with pytest.raises(UsageError, match="minutes 61: expected a number above 0 and at most 60"):
        Cooking(61)


def stored(**more):
    return {"settings": dataclasses.asdict(Settings()) | more}


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="mine is a file; choose another --run-dir"):
        RunFolder(tmp_path / "mine").stored_settings()


def test_config_of_every_format_is_read():
    """The first had an output stride for every net, and no number."""
    old = stored(output_stride=8)
    del old["settings"]["iou_loss"]
    assert from_stored(old) == Settings()
    old["settings"]["arch"] = "dilated"
    assert from_stored(old) == Settings(arch="dilated", output_stride=8)
    assert from_stored(stored(output_stride=8)) == Settings(output_stride=8)
    assert from_stored({"format": 2, **stored(output_stride=8)}) == Settings(output_stride=8)


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ({"format": 3, **stored()}, "a newer kfcn wrote it"),
        ({"format": "x", **stored()}, "format 'x'"),
        (
            {"format": 2, **stored(hue=0.1)},
            "the unknown setting hue: it was written by another version of kfcn",
        ),
        ({"format": 2, "settings": 3}, "is damaged"),
        ([], "is damaged"),
        ({}, "is damaged"),
    ],
)
def test_a_damaged_config_is_told(contents, told, tmp_path):
    run = RunFolder(tmp_path)
    run.config.write_text(json.dumps(contents))
    with pytest.raises(KfcnError, match=told) as caught:
        run.stored_settings()
    assert str(run.config) in str(caught.value) and "\n" not in str(caught.value)
    assert not isinstance(caught.value, UsageError)


def test_strong_changes_take_crops():
    assert resolve(augment="strong").window
    with pytest.raises(UsageError, match=r"augment strong: .*choose it with --crop H W"):
        resolve(augment="strong", crop=(0, 0))


@pytest.mark.parametrize(
    ("steps", "epochs"), [(1, 500), (5, 100), (12, 42), (13, 40), (92, 40), (250, 40), (1000, 10)]
)
def test_a_few_pictures_are_seen_more_often(steps, epochs):
    """500 to 10,000 steps, 40 epochs between."""
    assert resolve(data="folder", data_dir="x").for_steps(steps).epochs == epochs
    assert resolve(data="folder", data_dir="x", epochs=3).for_steps(steps).epochs == 3
    assert resolve().for_steps(steps).epochs == 12  # of the scenes


def test_the_default_backbone_has_its_weights_with_it():
    found = resolve(data="folder", data_dir="x")
    assert (found.backbone, found.weights, found.alpha) == ("efficientnet_lite0", "imagenet", None)
    assert shipped_weights(found.backbone).is_file()
    assert (resolve().backbone, resolve().alpha) == ("mobilenet_v2", 0.35)
    assert resolve(backbone="resnet50").alpha is None
    assert resolve(recipe="camvid_fcn8s", data_dir="x").backbone == "mobilenet_v2"


def card(folder, **values):
    """A model whose card says so."""
    content = {"classes": ["a", "b"], "palette": [[0, 0, 0], [1, 1, 1]], **values}
    (folder / "model.json").write_text(json.dumps(content))
    (folder / "model.keras").touch()
    return str(folder)


class TestStart:
    """What a run starts from says which net it is."""

    def test_net_of_the_card(self, tmp_path):
        net = {"alpha": 0.5, "output_stride": 16, "align": True}
        start = card(tmp_path, architecture="fcn8s-fpn", backbone="mobilenet_v2", net=net)
        found = resolve(data="folder", data_dir="x", init_from=start)
        assert (found.arch, found.backbone) == ("fcn8s-fpn", "mobilenet_v2")
        assert (found.alpha, found.output_stride, found.align) == (0.5, 16, True)
        assert found.net_options == net
        # A data set's own defaults are weaker, a given arch, backbone or recipe stronger.
        assert resolve(init_from=start).alpha == 0.5
        assert resolve(init_from=start, arch="fcn16s").arch == "fcn16s"
        assert resolve(init_from=start, arch="heatmap").output_stride is None
        assert resolve(init_from=start, output_stride=8).arch == "fcn8s-fpn"
        assert resolve(init_from=start, backbone="resnet50").alpha is None
        found = resolve(recipe="camvid_fcn8s", data_dir="x", init_from=start)
        assert (found.arch, found.alpha) == ("fcn8s", 0.5)

    def test_convnet(self, tmp_path):
        found = resolve(init_from=card(tmp_path, architecture="convnet", backbone=None))
        assert (found.arch, found.weights, found.alpha) == ("convnet", "none", None)

    def test_card_without_a_net(self, tmp_path):
        assert resolve(init_from=card(tmp_path)).arch == "fcn8s"
        assert resolve(init_from=str(tmp_path / "to-be-trained")).arch == "fcn8s"

    @pytest.mark.parametrize(
        "values",
        [{"architecture": "fcn64s"}, {"net": {"alpha": "wide"}}, {"net": 3}, {"net": {"new": 1}}],
    )
    def test_card_of_no_net(self, values, tmp_path):
        with pytest.raises(KfcnError) as caught:
            resolve(init_from=card(tmp_path, **values))
        assert "\n" not in str(caught.value)


def test_an_option_that_one_backbone_alone_has_chooses_it():
    found = resolve(data="camvid", alpha=0.35)
    assert (found.backbone, found.alpha) == ("mobilenet_v2", 0.35)
    assert resolve(data="camvid", fc_filters=8).backbone == "vgg16"
    assert resolve(data="camvid").backbone == "efficientnet_lite0"
    for given in ({"backbone": "resnet50"}, {"fc_filters": 8}):
        with pytest.raises(UsageError, match=r"alpha.*: fcn8s on .* has no such option"):
            resolve(data="camvid", alpha=0.35, **given)
