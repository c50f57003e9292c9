"""What the page shows of a picture: the list, the tints, the names, on a desk and on a phone."""

import os

import numpy as np
from kfcn_mobile.agreement import boundary_band
from kfcn_mobile.bundle import read_bundle
from web_page import READY, centres, host_labels, overlay, shown_shares, wait_shown


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
    cores = len(os.sched_getaffinity(0))
    assert "on 2 threads" in page.inner_text("#status") or cores != 2
    assert page.evaluate("crossOriginIsolated")


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
