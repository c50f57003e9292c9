"""The page in a headless Chromium: its labels, what it shows, its life without a network."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from kfcn_mobile.bundle import read_bundle
from kfcn_mobile.runner import Segmenter
from kfcn_mobile.serve import Server, site_folders
from kfcn_mobile.targets import TargetError, Timing
from kfcn_mobile.targets.browser import QUIET, find_chromium
from PIL import Image
from ready import ready
from shipping import tiny_bundle

READY = "body[data-ready=yes]"
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def target():
    return ready("browser")[0]


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(tiny_bundle())


def host_labels(bundle, file, images):
    segmenter = Segmenter(bundle.path / file)
    return [segmenter.run(image) for image in images]


def test_the_page_labels_the_golden_images_as_the_host_does(target, bundle):
    with target:
        for model in bundle.models:
            outcome = target.run(bundle, model, Timing((1, 2), runs=2, warmup=1))
            expected = host_labels(bundle, model["file"], [g.image for g in bundle.golden])
            np.testing.assert_array_equal(np.stack(outcome.labels), np.stack(expected))
            assert [times["threads"] for times in outcome.latency][:1] == [1]
            assert all(times["runs"] == 2 and times["min_ms"] > 0 for times in outcome.latency)


def test_a_picture_that_is_decoded_otherwise_is_refused(target, bundle):
    """The page tells the hash of what reached the net."""
    from dataclasses import replace

    golden = replace(bundle.golden[0], image=bundle.golden[0].image ^ 1)
    with target, pytest.raises(TargetError, match="was not decoded to its own values"):
        target.run(replace(bundle, golden=(golden,)), bundle.models[0], Timing(runs=0))


@pytest.fixture(scope="module")
def chromium(target):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    arguments = QUIET[1:] + CAMERA + ["--no-sandbox"] * (os.geteuid() == 0)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=find_chromium(), args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(bundle):
    server = Server(site_folders(bundle.path, print))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(chromium, server):
    """The open page; whatever it asked of another host, or raised, fails the test."""
    context = chromium.new_context(viewport={"width": 1000, "height": 800})
    page = context.new_page()
    asked, raised = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: raised.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector(READY)
    yield page
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {server.url[7:-1]}
    assert not raised
    context.close()


def shown_shares(page):
    """The list of the page: class -> the text of its share, in order."""
    rows = page.query_selector_all("#list li")
    return [
        (r.query_selector("b").inner_text(), r.query_selector("span").inner_text()) for r in rows
    ]


def test_the_list_holds_the_shares_of_the_first_golden_image(page, bundle):
    assert page.input_value("#mode") == "int8"
    (labels,) = host_labels(bundle, "int8.tflite", [bundle.golden[0].image])
    counts = np.bincount(labels.ravel(), minlength=len(bundle.classes))
    expected = [
        (bundle.classes[i], f"{100 * counts[i] / labels.size:.1f} %")
        for i in np.argsort(-counts, kind="stable")
        if counts[i]
    ]
    assert len(expected) > 1
    assert shown_shares(page) == expected
    colour = page.eval_on_selector("#list i", "i => getComputedStyle(i).backgroundColor")
    first = bundle.palette[bundle.classes.index(expected[0][0])]
    assert colour == f"rgb({', '.join(map(str, first))})"
    assert page.inner_text("#status").endswith("int8 · 2 threads") or os.cpu_count() != 2
    assert page.evaluate("crossOriginIsolated")


def save_labels(page, tmp_path):
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "labels.png")
    return Image.open(tmp_path / "labels.png")


def test_a_chosen_picture_and_its_label_map(page, bundle, tmp_path):
    """Twice the size, each pixel four times: the labels too are each four times."""
    image = bundle.golden[1].image
    Image.fromarray(image.repeat(2, 0).repeat(2, 1)).save(tmp_path / "twice.png")
    page.set_input_files("#file", tmp_path / "twice.png")
    page.wait_for_function("document.querySelector('#picture').width === 128")
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
    page.wait_for_function("document.querySelector('#picture').width === 32")
    padded = np.full((height, width, 3), 128, np.uint8)
    padded[:, width // 4 : 3 * width // 4] = image
    (labels,) = host_labels(bundle, "int8.tflite", [padded])
    saved = np.array(save_labels(page, tmp_path))
    np.testing.assert_array_equal(saved, labels[:, width // 4 : 3 * width // 4])
    shares = [float(text.rstrip(" %").lstrip("< ")) for _, text in shown_shares(page)]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_another_model_can_be_chosen(page, bundle):
    page.select_option("#mode", "float32")
    page.wait_for_function("document.querySelector('#status').textContent.includes('float32')")
    (labels,) = host_labels(bundle, "float32.tflite", [bundle.golden[0].image])
    counts = np.bincount(labels.ravel())
    best = int(counts.argmax())
    share = f"{100 * counts[best] / labels.size:.1f} %"
    assert shown_shares(page)[0] == (bundle.classes[best], share)


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
          const blob = await (await fetch('bundle/golden/0001_image.png')).blob();
          const carried = new DataTransfer();
          carried.items.add(new File([blob], 'dropped.png', {type: 'image/png'}));
          document.querySelector('#list').replaceChildren();
          document.dispatchEvent(new DragEvent('drop', {dataTransfer: carried, bubbles: true}));
        }"""
    )
    page.wait_for_selector("#list li")
    (labels,) = host_labels(bundle, "int8.tflite", [bundle.golden[1].image])
    np.testing.assert_array_equal(np.array(save_labels(page, tmp_path)), labels)


def test_the_camera_runs_and_stops(page):
    page.click("#camera")
    page.wait_for_function("document.querySelector('#camera').textContent === 'Stop'")
    page.wait_for_function("document.querySelector('#picture').width === 640")
    page.click("#camera")
    page.wait_for_function("document.querySelector('#camera').textContent === 'Camera'")
    page.select_option("#mode", "float32")  # the last frame is still there to be labelled
    page.wait_for_function("document.querySelector('#status').textContent.includes('float32')")


def test_after_the_first_visit_no_server_is_needed(chromium, bundle):
    # A process of its own, so that no open connection outlives it.
    command = [sys.executable, "-m", "kfcn_mobile.serve", bundle.path, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[0]
        page = chromium.new_context().new_page()
        page.goto(url)
        page.wait_for_selector(READY)
        before = shown_shares(page)
    finally:
        server.kill()
        server.wait()
    page.reload()
    page.wait_for_selector(READY)
    assert shown_shares(page) == before
    assert page.evaluate("crossOriginIsolated")  # so that threads are there offline too
    # Control: nobody answers for a file that was not kept.
    asked = "fetch('never-asked-for').then(() => 'answered', () => 'nobody')"
    assert page.evaluate(asked) == "nobody"
    page.context.close()


def test_a_phone_shows_it_without_scrolling_sideways(chromium, server):
    context = chromium.new_context(
        viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True
    )
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector(READY)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    heights = page.eval_on_selector_all(
        "button, .button, select", "all => all.map(e => e.getBoundingClientRect().height)"
    )
    assert min(heights) >= 44  # large enough for a thumb
    for name in ("left", "top", "width", "height"):
        inside = f"e => Math.round(e.getBoundingClientRect().{name})"
        over = page.eval_on_selector("#overlay", inside)
        assert over == page.eval_on_selector("#picture", inside)
    context.close()
