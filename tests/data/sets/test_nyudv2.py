"""NYU Depth v2 from tiny files of the structure of the authors', Gupta's and the FCN code's."""

import h5py
import numpy as np
import pytest
import scipy.io
from drawn import save, write

from kfcn import data
from kfcn.data.sets.nyudv2 import NAMES
from kfcn.errors import DataError, UsageError

COUNT, HEIGHT, WIDTH = 7, 6, 8


@pytest.fixture
def official(tmp_path):
    """`nyu_depth_v2_labeled.mat` of 7 pictures; returns images, raw labels and the mapping."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    raw = rng.integers(0, 895, (COUNT, HEIGHT, WIDTH), np.uint16)
    raw[:, 0, 0] = 0
    mapping = rng.integers(1, 41, 894)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        file["images"] = images.transpose(0, 3, 2, 1)  # as MATLAB stores (H, W, 3, N)
        file["labels"] = raw.transpose(0, 2, 1)
    scipy.io.savemat(
        tmp_path / "classMapping40.mat",
        {"mapClass": mapping[None].astype(float), "className": np.array(NAMES, object)},
    )
    return tmp_path, images, raw, mapping


def gupta(root):
    parts = {"train": [5001, 5003], "val": [5002], "test": [5007], "trainval": [5001, 5002, 5003]}
    scipy.io.savemat(root / "nyusplits.mat", {k: np.array(v)[:, None] for k, v in parts.items()})


def test_the_authors_file_with_guptas_classes(official):
    root, images, raw, mapping = official
    gupta(root)
    assert data.splits("nyudv2", root) == ("train", "val", "trainval", "test")
    train = data.load("nyudv2", "train", root)
    assert len(train) == 2 and len(train.classes) == 40
    for index, number in enumerate((0, 2)):
        sample = train[index]
        assert sample.name == f"img_{5001 + number}.png"
        np.testing.assert_array_equal(sample.image, images[number])
        for y in range(HEIGHT):
            for x in range(WIDTH):
                stored = raw[number, y, x]
                assert sample.labels[y, x] == (mapping[stored - 1] - 1 if stored else 255)
    counts = data.check(train)
    assert counts.ignored >= 2 and counts.images == 2
    assert data.load("nyudv2", "test", root)[-1].name == "img_5007.png"


def test_the_authors_own_split(official):
    root, images, _, _ = official
    scipy.io.savemat(root / "splits.mat", {"trainNdxs": [[1], [2]], "testNdxs": [[7]]})
    assert data.splits("nyudv2", root) == ("train", "test")
    np.testing.assert_array_equal(data.load("nyudv2", "test", root)[0].image, images[6])


def test_the_fcn_codes_folder_holds_the_same(official, tmp_path):
    root, images, raw, mapping = official
    gupta(root)
    theirs, folder = data.load("nyudv2", "train", root), tmp_path / "nyud"
    lookup = np.append(0, mapping)
    for number in (5001, 5003):
        save(folder / f"data/images/img_{number}.png", images[number - 5001])
        (folder / "segmentation").mkdir(exist_ok=True)
        labels = lookup[raw[number - 5001]].astype(np.uint8)
        scipy.io.savemat(folder / f"segmentation/img_{number}.mat", {"segmentation": labels})
    write(folder / "train.txt", "5001\n5003\n")
    assert data.splits("nyudv2", folder) == ("train",)
    ours = data.load("nyudv2", "train", folder)
    for index in range(2):
        np.testing.assert_array_equal(ours[index].image, theirs[index].image)
        np.testing.assert_array_equal(ours[index].labels, theirs[index].labels)


def test_what_is_wrong_is_said(official, tmp_path):
    root, *_ = official
    with pytest.raises(UsageError, match="does not hold nyudv2; expected nyu_depth_v2_labeled"):
        data.splits("nyudv2", root)
    scipy.io.savemat(root / "nyusplits.mat", {"train": [[5001], [5009]]})
    with pytest.raises(DataError, match=r"names picture 5009; .* holds 5001 to 5007"):
        data.load("nyudv2", "train", root)
    gupta(root)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "r+") as file:
        file["labels"][0, 0, 0] = 895
    with pytest.raises(DataError, match="picture 5001 has label 895; expected 0 to 894"):
        data.check(data.load("nyudv2", "train", root))
    scipy.io.savemat(root / "classMapping40.mat", {"mapClass": np.full((1, 894), 41)})
    with pytest.raises(DataError, match="mapClass does not hold 894 classes"):
        data.load("nyudv2", "train", root)
    (root / "classMapping40.mat").unlink()
    with pytest.raises(DataError, match=r"classMapping40\.mat: no such file"):
        data.load("nyudv2", "train", root)
    (root / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 7.3 MAT-file" + bytes(600))
    (root / "classMapping40.mat").write_bytes(b"no MATLAB file")
    with pytest.raises(DataError, match="cannot be read as a MATLAB file"):
        data.load("nyudv2", "train", root)
    scipy.io.savemat(root / "classMapping40.mat", {"mapClass": np.full((1, 894), 4)})
    with pytest.raises(DataError, match=r"is not a nyu_depth_v2_labeled\.mat .*download it again"):
        data.load("nyudv2", "train", root)
