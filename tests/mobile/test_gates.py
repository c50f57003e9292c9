import pytest
from kfcn_mobile.gates import MODES, Limits, explain, failures, limits_for


def result(agreement=1.0, worst=1.0, confident=1.0):
    images = [
        {"name": "a.png", "agreement": 1.0, "confident": 1.0},
        {"name": "b.png", "agreement": worst, "confident": confident},
        {"name": "c.png", "agreement": 1.0, "confident": None},
    ]
    return {"agreement": agreement, "confident": confident, "images": images}


def test_default_limits():
    limits = {name: mode.limits for name, mode in MODES.items()}
    assert {name: limit.agreement for name, limit in limits.items()} == {
        "float32": 0.9999,
        "float16": 0.999,
        "dynamic": 0.99,
        "int8": 0.985,
        "mixed": 0.985,
    }
    assert {name for name, limit in limits.items() if limit.image == 0.97} == {"int8", "mixed"}
    assert {limit.confident for limit in limits.values()} == {0.999}
    assert {name for name, limit in limits.items() if limit.confidence} == {"float32"}
    assert [name for name, mode in MODES.items() if mode.identical] == ["int8"]


@pytest.mark.parametrize("mode", MODES)
def test_every_gate_passes_at_its_limit_and_fails_below(mode):
    limits = MODES[mode].limits
    at = {"agreement": limits.agreement, "confident": limits.confident}
    at["worst"] = limits.image or limits.agreement
    assert failures(result(**at), limits) == []
    gates = {"agreement": "agreement", "worst": "image", "confident": "confident"}
    for key, gate in gates.items():
        missed = failures(result(**at | {key: at[key] - 1e-6}), limits)
        expected = [] if key == "worst" and limits.image is None else [(gate, "b.png")]
        assert [(failure["gate"], failure["image"]) for failure in missed] == expected


def test_limits_can_be_set_one_by_one():
    assert limits_for("int8", agreement=0.9) == Limits(0.9, image=0.97)
    assert limits_for("float32", image=0.5) == Limits(0.9999, image=0.5, confidence=1e-4)
    assert failures(result(worst=0.4), limits_for("float32", image=0.5))


def test_a_miss_names_value_limit_and_image():
    (failure,) = failures(result(worst=0.96), Limits(0.9, image=0.97))
    assert explain("int8", failure) == (
        "int8: agreement of one image is 96.0000%, needs 97.0000% (worst image: b.png)"
    )


def test_int8_must_be_the_same_on_every_target():
    against = {"differing": 3, "pixels": 1000, "image": "b.png"}
    against |= {"same_file": True, "same_kernels": True}
    int8 = result() | {"mode": "int8", "against_first": against}
    (failure,) = failures(int8, Limits(0.9))
    assert explain("int8", failure) == (
        "int8: 3 pixels differ from the first target's, needs none (most in: b.png)"
    )
    assert explain("int8", failure | {"value": 1}).startswith("int8: 1 pixel differs from")
    # Where floats are summed nothing is promised, and equal is equal.
    for mode in ("float32", "float16", "dynamic", "mixed"):
        assert not failures(int8 | {"mode": mode}, Limits(0.9))
    for harmless in ({"differing": 0}, {"same_file": False}, {"same_kernels": False}):
        assert not failures(int8 | {"against_first": against | harmless}, Limits(0.9))


def test_probabilities_must_be_those_of_keras_where_there_are_any():
    off = result() | {"confidence_error": {"value": 2e-4, "image": "b.png"}}
    (failure,) = failures(off, MODES["float32"].limits)
    assert explain("float32", failure) == (
        "float32: a probability is 2.0e-04 off, may be 1.0e-04 (worst image: b.png)"
    )
    off["confidence_error"]["value"] = 0.9e-4
    assert failures(off, MODES["float32"].limits) == []
    assert failures(result() | {"confidence_error": None}, MODES["float32"].limits) == []
