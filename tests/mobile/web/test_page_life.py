"""The page goes on: while the net works, with another net, with a camera, without a network."""

import subprocess
import sys
import threading

import numpy as np
from kfcn_mobile.server import Server
from kfcn_mobile.site import make_site, net_of
from web_page import READY, chosen, host_labels, shown_shares, wait_shown


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


def test_another_model_can_be_chosen(page, bundle):
    page.select_option("#mode", "float32")
    wait_shown(page, 2)
    assert " float32 · WebAssembly" in page.inner_text("#status")
    (labels,) = host_labels(bundle, "float32.tflite", [bundle.golden[0].image])
    counts = np.bincount(labels.ravel())
    best = int(counts.argmax())
    share = f"{100 * counts[best] / labels.size:.1f} %"
    assert shown_shares(page)[0] == (bundle.classes[best], share)


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
