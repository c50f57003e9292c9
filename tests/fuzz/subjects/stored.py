"""Damaged files that kfcn has written for itself: data, bundles, manifests, outlines."""

import gzip
import hashlib
import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
from drawn import SIZE, mask
from mutations import damaged, damaged_json

from subjects.outcomes import READ, REFUSED, told
from subjects.pictures import encoded, pictures


def card(rng: np.random.Generator, folder: Path) -> str:
    """`kfcn.json` of prepared data."""
    from kfcn.data.sets.prepared import CARD, Prepared
    from kfcn.errors import KfcnError

    counts = {"pixels": [5, 6], "image_pixels": [9, 9], "ignored": 1, "images": 2, "notes": []}
    content = {
        "source": "folder", "stretch": [0, 4095], "classes": ["a", "b"],
        "palette": [[0, 0, 0], [1, 2, 3]], "splits": {"train": counts, "val": counts},
    }  # fmt: skip
    (folder / CARD).write_bytes(damaged_json(rng, content))
    try:
        splits = Prepared.splits(folder)
    except KfcnError as error:
        return told(error)
    assert splits and all(isinstance(split, str) for split in splits)
    return READ


def bundle(rng: np.random.Generator, folder: Path) -> str:
    from kfcn_mobile.bundle import BundleError, read_bundle

    (folder / "golden").mkdir()
    margin = io.BytesIO()
    np.save(margin, np.ones(SIZE, np.float16))
    files = {
        "float32.tflite": b"\0\0\0\0TFL3" + bytes(40),
        "golden/0000_image.png": pictures()[0],
        "golden/0000_labels.png": encoded(mask(), "PNG"),
        "golden/0000_margin.npy": margin.getvalue(),
    }
    golden = {
        "name": "a", "image": "golden/0000_image.png", "labels": "golden/0000_labels.png",
        "margin": "golden/0000_margin.npy",
    }  # fmt: skip
    info = {
        "format": 1, "size": list(SIZE), "classes": ["ground", "car"],
        "palette": [[0, 0, 0], [9, 9, 9]], "golden": [golden],
        "models": [{"file": "float32.tflite", "mode": "float32"}],
    }  # fmt: skip
    victim = str(rng.choice(["bundle.json", *files]))
    if victim != "bundle.json":
        files[victim] = damaged(rng, files[victim])
    info["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    content = json.dumps(info).encode()
    (folder / "bundle.json").write_bytes(
        damaged_json(rng, info) if victim == "bundle.json" else content
    )
    try:
        found = read_bundle(folder)
    except BundleError as error:
        return told(error)
    for entry in found.golden:
        assert entry.image.shape == (*SIZE, 3) and entry.labels.shape == SIZE
        assert entry.labels.max() < len(found.classes) and (entry.margin >= 0).all()
    return READ


def manifest(rng: np.random.Generator, folder: Path) -> str:
    """`.kfcn.jsonl`: whatever it holds, a file that somebody has changed is never kfcn's own."""
    from kfcn.errors import KfcnError
    from kfcn.outputs import MANIFEST, Outputs, State

    outputs = Outputs(folder)
    ours, theirs = folder / "a.png", folder / "b.png"
    with outputs.lock():
        outputs.write_text(ours, "kfcn")
        outputs.write_text(theirs, "kfcn")
    theirs.write_text("corrected")
    file = folder / MANIFEST
    file.write_bytes(damaged(rng, file.read_bytes()))
    outputs = Outputs(folder)
    try:
        with outputs.lock():
            states = outputs.state(ours), outputs.state(theirs)
            left = outputs.check([theirs], leave=tuple(State))
    except KfcnError as error:
        return told(error)
    assert states[1] is not State.OURS and left == [theirs]
    assert theirs.read_text() == "corrected" and ours.read_text() == "kfcn"
    return READ if states[0] is State.OURS else REFUSED


def outline(rng: np.random.Generator, folder: Path) -> str:
    """The outline of a net, as it is kept for the next start, or its file: whole, or none."""
    from kfcn.inference.runtime.outline import program

    path, kernel = folder / "x.keras", np.arange(81, dtype=np.float32).reshape(3, 3, 3, 3)
    held = io.BytesIO()
    with h5py.File(held, "w") as weights:
        weights["kernel"] = kernel
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", " " * 5000)  # which is not read
        archive.writestr("model.weights.h5", held.getvalue())
    window = {"stride": [1, 1], "dilation": [1, 1], "padding": "same"}
    steps = [
        ["conv", [0], window, {"kernel": "kernel", "bias": [1, 2, 3]}],
        ["activate", [1], {"function": "sigmoid"}, {}],
    ]
    card = {"format": 1, "steps": steps, "last": 2, "classes": 3, "margin": 1}
    content = gzip.compress(json.dumps(card).encode())
    if rng.integers(2):
        content = damaged(rng, content)
    else:
        path.write_bytes(damaged(rng, path.read_bytes()))
    found = program(content, path)
    if found is None:
        return REFUSED
    assert (found.classes, found.margin, len(found.steps)) == (3, 1, 2)
    assert [(step.kind, list(step.inputs), step.options) for step in found.steps] == [
        (kind, inputs, options) for kind, inputs, options, _ in steps
    ]
    np.testing.assert_array_equal(found.steps[0].weights["kernel"], kernel)
    np.testing.assert_array_equal(found.steps[0].weights["bias"], [1, 2, 3])
    return READ
