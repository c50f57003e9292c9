"""Checkpoints as files: which of them stay, and what becomes of damaged ones and of a full disk."""

import numpy as np
import pytest
from processes import checkpoints, small_disk


class Value:
    """Enough of a variable."""

    def __init__(self, value):
        self.value = np.asarray(value, "float32")
        self.shape = self.value.shape

    def __array__(self, dtype=None, copy=None):
        return self.value

    def assign(self, value):
        self.value = value


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Five checkpoints, of which three stay; the values are the step."""
    from kfcn.training import checkpoint

    monkeypatch.setattr(checkpoint.keras.ops, "convert_to_numpy", np.asarray)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in range(1, 6):
        checkpoint.save(folder, [Value(np.full((50, 50), step))], step, {"rows": []}, keep=3)
    return checkpoint, folder


def test_the_last_k_are_kept(saved):
    _, folder = saved
    assert [p.name for p in sorted(folder.iterdir())] == [f"step-0000000{n}.npz" for n in (3, 4, 5)]


def flipped(data):
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


@pytest.mark.parametrize("damage", [lambda d: d[:1000], lambda d: b"", flipped, lambda d: d[:-30]])
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_is_used(saved, damage):
    checkpoint, folder = saved
    path = folder / "step-00000005.npz"
    path.write_bytes(damage(path.read_bytes()))
    variable, said = Value(np.zeros((50, 50))), []
    assert checkpoint.restore(folder, [variable], warn=said.append)["step"] == 4
    assert (variable.value == 4).all()
    assert len(said) == 1 and "step-00000005.npz is damaged" in said[0]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_checkpoint_takes_no_place_of_a_sound_one(saved, keep):
    """The run goes on from the one before it, and saves before it is as far again."""
    checkpoint, folder = saved  # 3, 4 and 5
    variable = Value(np.zeros((50, 50)))
    checkpoint.save(folder, [Value(np.full((50, 50), 10))], 10, {}, keep=2)  # 5 and 10
    (folder / "step-00000010.npz").write_bytes(b"")
    assert checkpoint.restore(folder, [variable], warn=lambda line: None)["step"] == 5

    def there(step):
        checkpoint.save(folder, [Value(np.full((50, 50), step))], step, {}, keep)
        return [int(path.stem[5:]) for path in checkpoints(folder.parent)]

    assert there(7) == ([7, 10] if keep == 1 else [5, 7, 10])
    assert checkpoint.restore(folder, [variable], warn=lambda line: None)["step"] == 7
    assert (variable.value == 7).all()
    assert there(11) == ([11] if keep == 1 else [10, 11])
    assert there(12) == ([12] if keep == 1 else [11, 12])


def test_a_full_disk_loses_no_earlier_checkpoint(saved):
    """On a real file system of one megabyte."""
    from kfcn.errors import KfcnError

    checkpoint, folder = saved
    with small_disk(folder / "small", "1m") as small:
        for step in (1, 2):
            checkpoint.save(small, [Value(np.full((256, 256), step))], step, {"rows": []}, keep=5)
        with pytest.raises(KfcnError, match=r"step-00000003\.npz could not be written: No space"):
            for step in (3, 4, 5):
                checkpoint.save(small, [Value(np.full((512, 512), step))], 3, {"rows": []}, keep=5)
        assert [p.name for p in sorted(small.iterdir())] == [f"step-0000000{n}.npz" for n in (1, 2)]
        variable = Value(np.zeros((256, 256)))
        assert checkpoint.restore(small, [variable])["step"] == 2
        assert (variable.value == 2).all()
