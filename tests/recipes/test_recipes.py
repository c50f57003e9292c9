"""Recipes: every one resolves and builds; stages run one after the other and go on."""

import re
import signal

import pytest
from processes import checkpoints, difference
from small_nets import settings as tiny

from kfcn import recipes, train
from kfcn.errors import Stopped, UsageError
from kfcn.training.resolution import resolve
from kfcn.training.settings import Settings
from kfcn.training.stages import plan
from kfcn.training.start import build

FIELDS = ("Command", "Data", "Hardware", "Time", "Metric")


@pytest.mark.parametrize("name", recipes.names())
def test_the_card_is_complete(name):
    text = recipes.card(name)
    first, blank, *_ = text.splitlines()
    assert first.endswith(".") and len(first) < 100 and not blank
    found = dict(re.findall(r"^(\w+): +(\S.*)$", text, re.M))
    assert set(FIELDS) <= set(found)
    assert found["Command"].startswith(f"kfcn-train --recipe {name}")
    assert re.search(r" on \w+", text[text.index("Metric:") :]) or "not run" in found["Metric"]
    assert not re.search("TODO|/home/", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.names())
def test_the_net_builds(name):
    stages = plan("no/such/folder", {"recipe": name})
    assert len(stages) == len(recipes.stages(name))
    for stage in stages:
        config = stage.config
        # The paper's fc6 alone has 103 M weights.
        less = {"fc_filters": 16} if config.backbone == "vgg16" else {}
        net = build(Settings(**{**vars(config), **less}), classes=5)
        assert net.outputs[0].shape == (None, None, None, 5)
    if len(stages) > 1:
        starts = [stage.config.init_from for stage in stages]
        assert starts == [None, *(str(stage.run.path) for stage in stages[:-1])]
        assert stages[0].run.path.name == f"1-{stages[0].config.arch}"


def test_the_first_stage_may_start_from_a_run(tmp_path):
    """Also when it is called again, and the whole folder has moved meanwhile."""
    given = {"recipe": "voc_fcn8s", "init_from": "runs/coco"}
    stages = plan(tmp_path / "here", given)
    starts = [stage.config.init_from for stage in stages]
    assert starts == ["runs/coco", *(str(tmp_path / f"here/{n}") for n in ("1-fcn32s", "2-fcn16s"))]
    for stage in stages:
        stage.run.start(stage.config)
    (tmp_path / "here").rename(tmp_path / "there")
    assert [stage.config for stage in plan(tmp_path / "there", given)] == [s.config for s in stages]


def test_scenes_are_the_default():
    assert resolve() == Settings(**{**vars(resolve(recipe="scenes")), "recipe": None})


def test_weights_of_a_file_are_those_of_the_first_stage(tmp_path):
    """Without a network they are passed as a file; the next stages start from the net before."""
    (tmp_path / "weights.npz").touch()
    given = {"recipe": "nyudv2_fcn8s_fpn", "weights": str(tmp_path / "weights.npz")}
    first, *rest = (stage.config for stage in plan(tmp_path / "run", given))
    assert first.weights == given["weights"] and first.init_from is None
    assert rest and all(config.init_from for config in rest)
    assert not [config for config in rest if config.weights == given["weights"]]


def test_flags_go_before_the_recipe_and_the_recipe_before_the_data():
    config = resolve(recipe="camvid_fcn8s", epochs=3, data_dir="x")
    assert (config.data, config.epochs, config.class_weights) == ("camvid", 3, "sqrt")
    assert resolve(recipe="camvid_fcn8s", class_weights="none").class_weights == "none"
    assert resolve(recipe="scenes", backbone="resnet50").alpha is None
    assert resolve(recipe="camvid_fcn8s", arch="convnet").weights == "none"
    assert resolve(recipe="voc_fcn8s/2").arch == "fcn16s"
    assert resolve(recipe="voc_fcn8s/1").learning_rate == pytest.approx(1.8e-5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"recipe": "moon"}, "unknown recipe 'moon'; expected one of camvid_fcn32s_16s_8s, "),
        ({"recipe": "../setup"}, "unknown recipe"),
        ({"recipe": "voc_fcn8s/4"}, "expected voc_fcn8s/1 or voc_fcn8s/2 or voc_fcn8s/3"),
        ({"recipe": "scenes/1"}, "expected scenes"),
        ({"recipe": "voc_fcn8s", "arch": "fcn8s"}, "leave arch out"),
        ({"arch": "convnet", "output_stride": 16}, "cannot be chosen for the arch convnet"),
        ({"recipe": "camvid_fcn8s", "output_stride": 4}, "expected one of 8, 16, 32"),
        ({"iou_loss": -1.0}, "expected a number of at least 0"),
    ],
)
def test_what_makes_no_sense_is_told(given, told):
    with pytest.raises(UsageError, match=told):
        plan("no/such/folder", given)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A recipe of two stages in the place where recipes lie."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "toy_two_stages.py").write_text(
        '"""Two stages."""\n'
        'STAGES = ({"arch": "convnet", "epochs": 1}, {"arch": "convnet", "learning_rate": 1e-4})\n'
    )
    monkeypatch.setattr(recipes, "__path__", [*recipes.__path__, str(tmp_path / "recipes")])
    return "toy_two_stages"


@pytest.mark.slow
def test_stages_start_from_each_other_and_go_on(toy, pairs, tmp_path, monkeypatch, capsys):
    """Stopped in the second stage; started again the first is left alone, the end is the same."""
    from kfcn.training.loop import Loop

    monkeypatch.chdir(tmp_path)
    more = tiny(pairs, alpha=None, recipe=toy, verbose=True)
    del more["epochs"]
    given = {**more, "epochs": 1}
    whole = train(**given)
    assert str(whole.run_dir) == f"runs/{toy}/2-convnet"
    told = capsys.readouterr().out
    assert f"stage 2 of 2: runs/{toy}/2-convnet" in told
    assert f"layers start from runs/{toy}/1-convnet" in told

    one_step, done = Loop.one_step, []

    def interrupted(self, stop=False):
        done.append(self.run.path.name)
        if done.count("2-convnet") == 1:
            signal.raise_signal(signal.SIGINT)
        return one_step(self, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "one_step", interrupted)
        with pytest.raises(Stopped):
            train(**given)  # the first is finished: this one is runs/NAME-2
    assert done == ["1-convnet"] * 3 + ["2-convnet"] * 2
    first = (tmp_path / f"runs/{toy}-2/1-convnet/model.keras").stat().st_mtime_ns
    capsys.readouterr()
    again = train(**given)
    told = capsys.readouterr().out
    assert f"stage 1 of 2: runs/{toy}-2/1-convnet, finished" in told
    assert "continuing" in told
    assert (tmp_path / f"runs/{toy}-2/1-convnet/model.keras").stat().st_mtime_ns == first
    ends = [checkpoints(result.run_dir)[-1] for result in (whole, again)]
    assert difference(*ends) == 0.0
    assert difference(ends[0], checkpoints(tmp_path / f"runs/{toy}/1-convnet")[-1]) > 1e-4
