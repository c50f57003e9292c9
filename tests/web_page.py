"""What the tests of the page in Chromium look at and do."""

import base64
import io

import numpy as np
from kfcn_mobile.runner import Segmenter
from PIL import Image

READY = "body[data-ready=yes]"


def host_labels(bundle, file, images):
    segmenter = Segmenter(bundle.path / file)
    return [segmenter.run(image) for image in images]


def shown_shares(page):
    """The list of the page: class -> the text of its share, in order."""
    rows = page.query_selector_all("#list li")
    return [
        (r.query_selector("b").text_content(), r.query_selector("span").text_content())
        for r in rows
    ]


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
