import numpy as np
import pytest
from PIL import Image

from kfcn import visualize

PALETTE = [(0, 0, 0), (200, 0, 0), (0, 200, 0)]


def test_label_map_keeps_indices_and_size(tmp_path):
    labels = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)
    visualize.palette_picture(labels, PALETTE).save(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), labels)
        rgb = np.asarray(picture.convert("RGB"))
    assert tuple(rgb[0, 1]) == PALETTE[1]
    assert tuple(rgb[1, 1]) == (224, 224, 192)
    assert [p.name for p in tmp_path.iterdir()] == ["map.png"]  # nothing half-written is left


def test_overlay_by_hand():
    image = np.full((3, 3, 3), 100, np.uint8)
    labels = np.ones((3, 3), np.uint8)
    labels[2, 2] = 255
    labels[0, 2] = 0
    tinted = visualize.overlay(image, labels, PALETTE, strength=0.5)
    assert tuple(tinted[0, 2]) == (255, 255, 255)  # boundary of the background
    labels[:] = [[1, 1, 1], [0, 0, 0], [0, 0, 255]]
    background = visualize.overlay(image, labels, PALETTE, strength=0.5)[1, 0]
    assert tuple(background) == (100, 100, 100)  # black: the photograph, not darkened
    labels[:] = [[1, 1, 0], [1, 1, 1], [1, 1, 255]]
    assert tuple(tinted[0, 0]) == (150, 50, 50)
    assert tuple(tinted[2, 2]) == (100, 100, 100)  # no label: as it was
    assert tuple(tinted[1, 2]) == (255, 255, 255)  # boundary


def test_overlay_against_exact_arithmetic():
    """Every grey value under every colour, rounded; where it is a half, either neighbour."""
    rng = np.random.default_rng(0)
    palette = rng.integers(1, 256, (255, 3)).tolist()
    labels = np.arange(255, dtype=np.uint8).repeat(2)[:, None].repeat(512, 1)
    image = np.arange(256, dtype=np.uint8).repeat(2)[None, :, None].repeat(510, 0).repeat(3, 2)
    found = visualize.overlay(image, labels, palette).astype(int)
    exact = (45 * image.astype(int) + 55 * np.array(palette)[labels]) / 100
    inside = ~visualize.boundaries(labels)
    assert inside.mean() > 0.4
    assert np.abs(found - exact)[inside].max() <= 0.5 + 1e-9
    assert (found[~inside] == 255).all()


def test_boundaries_by_hand():
    edge = visualize.boundaries(np.array([[0, 0, 1], [0, 0, 1]]))
    np.testing.assert_array_equal(edge, [[False, True, False], [False, True, False]])


def test_comparison_holds_three_tiles_and_a_legend():
    image = np.full((20, 30, 3), 50, np.uint8)
    truth = np.ones((20, 30), np.uint8)
    picture = visualize.comparison([(image, truth, truth, "a.png")] * 2, ["x", "y", "z"], PALETTE)
    assert picture.width == 3 * 30 + 2 * 4
    pixels = np.asarray(picture)
    assert tuple(pixels[26, 50]) == PALETTE[1]  # the middle of the truth tile
    assert picture.height > 2 * (20 + 16)


def test_curves_are_drawn(tmp_path):
    rows = [
        {"epoch": e, "loss": 1 / e, "val_cross_entropy": 2 / e, "mean_iou": 0.1 * e,
         "val_mean_iou": 0.1 * e, "learning_rate": 0.1}
        for e in (1, 2, 3)
    ]  # fmt: skip
    visualize.curves(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize(("shape", "sides"), [((1, 60), (6075, 690)), ((60, 1), (810, 690))])
def test_the_figure_of_a_narrow_picture_stays_a_picture(tmp_path, shape, sides):
    image, heat = np.zeros((*shape, 3)), np.full(shape, 0.5)
    visualize.draw_class_heatmap(tmp_path / "h.png", image, heat, "cat", [("cat", 0.5)])
    with Image.open(tmp_path / "h.png") as picture:
        assert picture.size == sides
