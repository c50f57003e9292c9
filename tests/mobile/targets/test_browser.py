"""The target `browser`: the page's labels of the golden images, in a headless Chromium."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from kfcn_mobile import site as site_module
from kfcn_mobile.bundle import read_bundle
from kfcn_mobile.errors import TargetError
from kfcn_mobile.targets import Timing, make_targets
from ready import ready
from shipping import tiny_bundle
from web_page import host_labels


@pytest.fixture(scope="module")
def target():
    return ready("browser")[0]


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(tiny_bundle())


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
