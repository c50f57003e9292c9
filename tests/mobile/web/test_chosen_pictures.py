"""Pictures that are chosen or dropped on the page: their labels, their proportions, their turn."""

import numpy as np
import pytest
from PIL import Image
from web_page import chosen, host_labels, save_labels, shown_shares, wait_shown


def test_a_chosen_picture_and_its_label_map(page, bundle, tmp_path):
    """Twice the size, each pixel four times: the labels too are each four times."""
    image = bundle.golden[1].image
    Image.fromarray(image.repeat(2, 0).repeat(2, 1)).save(tmp_path / "twice.png")
    page.set_input_files("#file", tmp_path / "twice.png")
    wait_shown(page, 2)
    (labels,) = host_labels(bundle, "int8.tflite", [image])
    saved = save_labels(page, tmp_path)
    assert saved.mode == "P"
    np.testing.assert_array_equal(np.array(saved), labels.repeat(2, 0).repeat(2, 1))
    palette = np.array(saved.getpalette()[: 3 * len(bundle.classes)]).reshape(-1, 3)
    np.testing.assert_array_equal(palette, bundle.palette)


def test_a_tall_picture_keeps_its_proportions(page, bundle, tmp_path):
    """What is not picture is grey for the net and counts nowhere."""
    height, width = bundle.size
    image = bundle.golden[2].image[:, : width // 2]
    Image.fromarray(image).save(tmp_path / "tall.png")
    page.set_input_files("#file", tmp_path / "tall.png")
    wait_shown(page, 2)
    assert page.eval_on_selector("#picture", "e => [e.width, e.height]") == [640, 960]
    padded = np.full((height, width, 3), 128, np.uint8)
    padded[:, width // 4 : 3 * width // 4] = image
    (labels,) = host_labels(bundle, "int8.tflite", [padded])
    saved = np.array(save_labels(page, tmp_path))
    np.testing.assert_array_equal(saved, labels[:, width // 4 : 3 * width // 4])
    shares = [float(text.rstrip(" %").lstrip("< ")) for _, text in shown_shares(page)]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_a_picture_chosen_while_another_model_loads_is_not_lost(page, bundle, tmp_path):
    image = bundle.golden[1].image
    Image.fromarray(image.repeat(2, 0).repeat(2, 1)).save(tmp_path / "twice.png")
    page.evaluate(  # a picture on its way to the net is slower than a small model
        """() => {
          const make = window.createImageBitmap;
          window.createImageBitmap = async (source) => {
            if (source instanceof ImageBitmap) await new Promise((go) => setTimeout(go, 700));
            return make(source);
          };
        }"""
    )
    page.set_input_files("#file", tmp_path / "twice.png")
    page.select_option("#mode", "float32")
    page.locator("#status", has_text="float32").wait_for()
    page.wait_for_timeout(1000)  # whatever else is on its way
    (labels,) = host_labels(bundle, "float32.tflite", [image])
    np.testing.assert_array_equal(
        np.array(save_labels(page, tmp_path)), labels.repeat(2, 0).repeat(2, 1)
    )


def test_a_file_that_is_no_picture_is_said(page, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    before = shown_shares(page)
    page.set_input_files("#file", tmp_path / "text.png")
    page.wait_for_selector("#status.error")
    assert page.inner_text("#status") == "text.png: not a picture that this browser reads"
    assert shown_shares(page) == before


def test_a_dropped_picture(page, bundle, tmp_path):
    page.evaluate(
        """async () => {
          const {nets: [{examples}]} = await (await fetch('nets.json')).json();
          const blob = await (await fetch(examples[0])).blob();
          const carried = new DataTransfer();
          carried.items.add(new File([blob], 'dropped.png', {type: 'image/png'}));
          document.dispatchEvent(new DragEvent('drop', {dataTransfer: carried, bubbles: true}));
        }"""
    )
    wait_shown(page, 2)
    (labels,) = host_labels(bundle, "int8.tflite", [bundle.golden[0].image])
    np.testing.assert_array_equal(np.array(save_labels(page, tmp_path)), labels)


def test_of_two_pictures_the_one_chosen_last_stays(page, tmp_path):
    chosen(page, (60, 30), (30, 60))
    wait_shown(page, 2)
    page.wait_for_timeout(2000)
    assert page.eval_on_selector("#picture", "e => [e.width, e.height]") == [480, 960]
    assert save_labels(page, tmp_path).size == (30, 60)


def test_a_new_picture_is_not_saved_with_the_labels_of_the_one_before(page, tmp_path):
    held = []
    page.expose_function("hold", lambda: held.append(1))
    page.evaluate(
        """() => {
          const make = window.createImageBitmap;
          window.createImageBitmap = async (source) => {
            if (source instanceof ImageBitmap) {
              await window.hold();
              await new Promise((go) => setTimeout(go, 1500));
            }
            return make(source);
          };
        }"""
    )
    chosen(page, (61, 31))
    for _ in range(100):
        if held:
            break
        page.wait_for_timeout(100)
    assert held and page.is_disabled("#download") and not shown_shares(page)
    wait_shown(page, 2)
    assert page.is_enabled("#download") and save_labels(page, tmp_path).size == (61, 31)


def test_several_dropped_pictures_are_told(page):
    page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(40, 30);
          canvas.getContext('2d').fillRect(0, 0, 40, 30);
          const blob = await canvas.convertToBlob();
          const carried = new DataTransfer();
          for (const name of ['a.png', 'b.png']) carried.items.add(new File([blob], name));
          document.dispatchEvent(new DragEvent('drop', {dataTransfer: carried}));
        }"""
    )
    wait_shown(page, 2)
    assert page.inner_text("#status").startswith("first of 2 pictures · ")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "a-labels.png"
