"""The page in a headless Chromium: its labels, what it shows, its life without a network."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from kfcn_mobile import site as site_module
from kfcn_mobile.agreement import boundary_band
from kfcn_mobile.bundle import read_bundle
from kfcn_mobile.errors import TargetError
from kfcn_mobile.runner import Segmenter
from kfcn_mobile.server import Server
from kfcn_mobile.site import make_site, net_of, read_net
from kfcn_mobile.targets import Timing, make_targets
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


def test_webgpu_labels_as_the_host_does(target, bundle):
    """On a graphics processor that Chromium plays, so that no time is looked at."""
    (webgpu,) = make_targets("browser:webgpu", print)
    (model,) = [m for m in bundle.models if m["mode"] == "float32"]
    with webgpu:
        try:
            outcome = webgpu.run(bundle, model, Timing((1,), runs=0, warmup=0))
        except TargetError as error:
            if "WebGPU" not in str(error):
                raise
            pytest.skip(f"this Chromium has no WebGPU: {error}")
    assert outcome.kernels == "WebGPU"
    expected = np.stack(host_labels(bundle, model["file"], [g.image for g in bundle.golden]))
    labels = np.stack(outcome.labels)
    assert len(np.unique(expected)) > 1
    assert np.mean(labels == expected) > 0.999


TUNE = """
import { tried } from './litert/core.js';
Object.defineProperty(globalThis, 'navigator', {
  value: { gpu: { requestAdapter: async () => ({ info: { isFallbackAdapter: false } }) } },
});
globalThis.fetch = async () => ({ ok: true, arrayBuffer: async () => new ArrayBuffer(1) });
console.warn = () => {};
const { Worker } = await import('./net.js');
for (const classes of [1, 7, 8, 21, 40]) {
  const worker = new Worker('');
  Object.assign(worker, { seen: [0], wanted: { file: 'a.tflite', size: [8, 8], classes } });
  worker.net = { about: () => classes };
  tried.length = 0;
  if ((await worker.tune('a.tflite')) !== classes) throw new Error('the net was exchanged');
  console.log(classes, ...tried);
}
"""
CORE = """
export const tried = [];
export async function loadAndCompile(content, { accelerator }) {
  tried.push(accelerator);
  throw new Error('this is all that is asked');
}
export const [loadLiteRt, supportsFeature, Tensor] = [];
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_a_net_whose_classes_webgpu_would_pad_is_not_tried_there(tmp_path):
    """LiteRT.js 2.5.3 fills them up to a multiple of four with classes that do not exist."""
    web = Path(site_module.__file__).parent / "web"
    for name in ("net.js", "regions.js"):
        shutil.copy(web / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tune.js").write_text(TUNE)
    (tmp_path / "litert").mkdir()
    (tmp_path / "litert/core.js").write_text(CORE)
    done = subprocess.run(["node", "tune.js"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n7\n8 webgpu\n21\n40 webgpu\n"


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
def objects(tmp_path_factory):
    """The bundle again, with a first class that is background."""
    folder = Path(shutil.copytree(tiny_bundle(), tmp_path_factory.mktemp("objects") / "objects"))
    info = json.loads((folder / "bundle.json").read_text())
    info["classes"][0] = "background"
    (folder / "bundle.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def server(bundle, objects):
    server = Server(make_site([net_of(bundle), read_net(objects)], print))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(chromium, server):
    """The open page; whatever it asked of another host, was refused, or raised, fails the test."""
    context = chromium.new_context(viewport={"width": 1000, "height": 800})
    context.set_default_timeout(120_000)  # milliseconds; a busy machine needs a minute to be ready
    page = context.new_page()
    asked, raised = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: raised.append(str(error)))
    page.on("console", lambda line: raised.append(line.text) if "Refused" in line.text else None)
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
        (r.query_selector("b").text_content(), r.query_selector("span").text_content())
        for r in rows
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
    said = ", ".join(f"{name} {share}" for name, share in expected)
    assert page.get_attribute("#picture", "aria-label") == f"Picture, with {said}"
    assert page.text_content("#summary") == f"Found: {said}"
    assert " int8 · WebAssembly" in page.inner_text("#status")
    assert "on 2 threads" in page.inner_text("#status") or os.cpu_count() != 2
    assert page.evaluate("crossOriginIsolated")


def overlay(page):
    """The overlay as uint8 RGBA (H, W, 4)."""
    address = page.eval_on_selector("#overlay", "canvas => canvas.toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
        return np.array(picture)


def centres(array, size):
    """The values of an enlarged picture at the centres of the pixels of a small one."""
    rows, columns = (
        ((np.arange(n) + 0.5) * m / n).astype(int)
        for n, m in zip(size, array.shape[:2], strict=True)
    )
    return array[rows[:, None], columns]


def test_objects_are_tinted_and_background_stays_the_photograph(page, objects):
    page.select_option("#net", label="objects")
    wait_shown(page, 2)
    bundle = read_bundle(objects)
    (labels,) = host_labels(bundle, "int8.tflite", [bundle.golden[0].image])
    alpha = centres(overlay(page)[..., 3], labels.shape)
    # Away from the edges, which are smoothed, every object is tinted and nothing else.
    inside = ~boundary_band(labels, 1)
    assert inside.mean() > 0.5
    assert (alpha[inside & (labels == 0)] == 0).all()
    assert (np.abs(alpha[inside & (labels != 0)].astype(int) - 128) < 3).all()
    (rest,) = page.query_selector_all("#list .rest b")
    assert rest.text_content() == "background"
    # The slider goes from the photograph alone to the strongest colours.
    page.fill("#opacity", "0")
    assert not overlay(page).any()
    # The picture fills its place although it has 64 x 48 pixels.
    frame, picture = (page.locator(s).bounding_box() for s in ("#frame", "#picture"))
    assert frame == picture and picture["width"] > 500


def point_at(page, y, x, size):
    box = page.locator("#picture").bounding_box()
    page.mouse.move(
        box["x"] + (x + 0.5) * box["width"] / size[1],
        box["y"] + (y + 0.5) * box["height"] / size[0],
    )


def lit(page, size):
    """Where the overlay does not darken."""
    pixels = centres(overlay(page), size)
    return ~((pixels[..., 3] == 153) & (pixels[..., :3].max(-1) < 20))


def test_pointing_lights_up_an_object_and_says_its_name(page, bundle):
    (labels,) = host_labels(bundle, "int8.tflite", [bundle.golden[0].image])
    inside = ~boundary_band(labels, 2)
    y, x = np.argwhere(inside)[0]
    name = bundle.classes[labels[y, x]]
    assert page.locator("#tip").is_hidden()
    point_at(page, y, x, labels.shape)
    page.wait_for_selector("#tip:not([hidden])")
    assert page.text_content("#tip").startswith(f"{name} ")
    # What is lit is one connected part of that class and holds the point.
    found = lit(page, labels.shape)
    assert found[y, x] and (labels[found & inside] == labels[y, x]).all()
    assert page.locator("#list .lit b").all_text_contents() == [name]
    page.mouse.move(2, 2)
    page.wait_for_selector("#tip", state="hidden")
    assert lit(page, labels.shape).all()


def test_a_name_in_the_list_lights_up_its_class(page, bundle):
    (labels,) = host_labels(bundle, "int8.tflite", [bundle.golden[0].image])
    inside = ~boundary_band(labels, 1)
    button = page.locator("#list button").nth(1)
    label = int(button.get_attribute("data-label"))
    button.focus()  # by the keyboard
    np.testing.assert_array_equal(lit(page, labels.shape)[inside], (labels == label)[inside])
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    page.locator("#opacity").focus()
    np.testing.assert_array_equal(lit(page, labels.shape)[inside], (labels == label)[inside])
    page.keyboard.press("Escape")
    assert button.get_attribute("aria-pressed") == "false"
    assert lit(page, labels.shape).all()


def test_large_regions_carry_their_names_where_they_are(page, bundle):
    (labels,) = host_labels(bundle, "int8.tflite", [bundle.golden[0].image])
    box = page.locator("#picture").bounding_box()
    names = page.query_selector_all("#names .name")
    shown = [name for name in names if name.is_visible()]
    assert len(shown) >= 2
    for name in shown:
        place = name.bounding_box()
        y = (place["y"] + place["height"] / 2 - box["y"]) * labels.shape[0] / box["height"]
        x = (place["x"] + place["width"] / 2 - box["x"]) * labels.shape[1] / box["width"]
        assert bundle.classes[labels[int(y), int(x)]] == name.text_content()


def test_the_page_answers_while_the_net_works(page, bundle):
    """The net is in a worker: it labels while the page runs a loop of its own."""
    answered = page.evaluate(
        """async () => {
          const input = document.querySelector('#file');
          const {nets: [{examples}]} = await (await fetch('nets.json')).json();
          const blob = await (await fetch(examples[0])).blob();
          const carried = new DataTransfer();
          carried.items.add(new File([blob], 'again.png', {type: 'image/png'}));
          const before = performance.getEntriesByType('resource').length;
          document.querySelector('#list').replaceChildren();
          document.dispatchEvent(new DragEvent('drop', {dataTransfer: carried, bubbles: true}));
          let turns = 0;
          while (!document.querySelector('#list li')) {
            await new Promise((resolve) => setTimeout(resolve));
            ++turns;
          }
          return turns;
        }"""
    )
    assert answered > 3
    workers = page.workers
    assert any(worker.url.endswith("/worker.js") for worker in workers)
    assert "LiteRt" not in page.evaluate("Object.keys(self).join()")


def wait_shown(page, count):
    """Waits until the page has shown as many pictures since it was opened."""
    # Not `wait_for_function`: it evaluates a text, which the page's policy refuses.
    for _ in range(600):
        if int(page.get_attribute("#frame", "data-shown") or 0) >= count:
            return
        page.wait_for_timeout(100)
    raise AssertionError(page.inner_text("#status"))


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


def test_another_model_can_be_chosen(page, bundle):
    page.select_option("#mode", "float32")
    wait_shown(page, 2)
    assert " float32 · WebAssembly" in page.inner_text("#status")
    (labels,) = host_labels(bundle, "float32.tflite", [bundle.golden[0].image])
    counts = np.bincount(labels.ravel())
    best = int(counts.argmax())
    share = f"{100 * counts[best] / labels.size:.1f} %"
    assert shown_shares(page)[0] == (bundle.classes[best], share)


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


def test_the_camera_runs_and_stops(page):
    page.click("#camera")
    page.wait_for_selector("#camera[aria-pressed=true]")
    wait_shown(page, 4)
    assert page.eval_on_selector("#picture", "e => [e.width, e.height]") == [800, 600]
    page.click("#camera")
    page.wait_for_selector("#camera[aria-pressed=false]")
    page.select_option("#mode", "float32")  # the last frame is still there to be labelled
    page.locator("#status", has_text="float32").wait_for()
    # A graphics processor that Chromium plays is none: the page stays where it was.
    assert " float32 · WebAssembly" in page.inner_text("#status")


def test_a_net_that_cannot_be_loaded_is_not_named(page, server):
    """The labels are those of the net that goes on, and so are the menus."""
    (address,) = [a for a in server.site if a.startswith("nets/bundle/float32-")]
    file = server.site.pop(address)
    page.select_option("#mode", "float32")
    page.wait_for_selector("#status.error")
    assert page.inner_text("#status") == "bundle, float32: 404 Not Found"
    assert page.eval_on_selector("#mode", "e => e.value") == "int8"
    server.site[address] = file
    page.select_option("#mode", "float32")
    page.locator("#status", has_text="ms · float32").wait_for()


def chosen(page, *bitmaps):
    """Chooses pictures of some colour one right after the other; the first is slow to decode."""
    page.evaluate(
        """async (sizes) => {
          const make = window.createImageBitmap;
          window.createImageBitmap = async (source) => {
            if (source.name === 'p0.png') await new Promise((go) => setTimeout(go, 1500));
            return make(source);
          };
          for (const [i, [width, height]] of sizes.entries()) {
            const canvas = new OffscreenCanvas(width, height);
            canvas.getContext('2d').fillRect(0, 0, width, height);
            const blob = await canvas.convertToBlob();
            const carried = new DataTransfer();
            carried.items.add(new File([blob], `p${i}.png`, {type: 'image/png'}));
            document.dispatchEvent(new DragEvent('drop', {dataTransfer: carried}));
          }
        }""",
        [list(size) for size in bitmaps],
    )


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


def test_a_camera_that_was_asked_for_twice_can_be_stopped(page):
    page.evaluate(
        """() => {
          window.streams = [];
          const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = async (wanted) => {
            await new Promise((go) => setTimeout(go, 700));
            window.streams.push(await ask(wanted));
            return window.streams.at(-1);
          };
        }"""
    )
    live = "() => window.streams.map((s) => s.getTracks()[0].readyState)"
    page.click("#camera")
    page.click("#camera")
    page.wait_for_selector("#camera[aria-pressed=true]")
    page.wait_for_timeout(1000)
    assert page.evaluate(live) == ["ended", "live"]
    page.click("#camera")
    page.wait_for_selector("#camera[aria-pressed=false]")
    assert page.evaluate(live) == ["ended", "ended"]
    # A picture that was chosen while the browser asks is not replaced by the camera.
    page.click("#camera")
    chosen(page, (1, 1), (30, 60))
    page.wait_for_timeout(2500)
    assert page.evaluate(live) == ["ended"] * 3
    assert page.eval_on_selector("#picture", "e => [e.width, e.height]") == [480, 960]


def test_after_the_first_visit_no_server_is_needed(chromium, bundle, objects):
    # A process of its own, so that no open connection outlives it.
    command = [sys.executable, "-m", "kfcn_mobile.serve", bundle.path, objects, "--port", "0"]
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
    assert page.is_visible("#offline")
    page.select_option("#net", "1")  # never looked at
    page.locator("#status", has_text="ms · int8").wait_for()
    assert page.eval_on_selector("#net", "e => e.value") == "1"
    page.select_option("#mode", "float32")
    page.wait_for_selector("#status.error")
    assert page.eval_on_selector("#mode", "e => e.value") == "int8"
    # Control: nobody answers for a file that was not kept.
    asked = "fetch('never-asked-for').then(() => 'answered', () => 'nobody')"
    assert page.evaluate(asked) == "nobody"
    page.context.close()


def test_another_program_at_this_address_is_let_be(chromium, bundle):
    """Port 8000 is many programs' own."""
    site = make_site([net_of(bundle)], print)
    server = Server(site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = chromium.new_context().new_page()
        page.goto(server.url)
        page.wait_for_selector(READY)
        workers = "navigator.serviceWorker.getRegistrations().then((all) => all.length)"
        assert page.evaluate(workers) == 1
        site.clear()
        site["index.html"] = b"<title>another</title>"
        page.reload()
        assert page.title() == "another"
        assert page.evaluate(workers) == 0 and page.evaluate("caches.keys()") == []
        page.context.close()
    finally:
        server.shutdown()
        server.server_close()


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
