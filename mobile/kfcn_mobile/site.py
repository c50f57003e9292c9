"""The files of the page: every address of the site, with what is answered there.

A site is one dictionary from addresses to contents; what is not in it does not exist for the
server, and is not written for a static host either.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfcn_mobile.bundle import (
    Bundle,
    BundleError,
    check_file,
    check_tflite,
    checked_labels,
    read_bundle,
    read_json,
)
from kfcn_mobile.console import Say
from kfcn_mobile.fetch.litert_js import litert_js
from kfcn_mobile.gates import MODES
from kfcn_mobile.outputs import OutputError, check_new, new_folder

PAGE = Path(__file__).resolve().parent / "web"

Site = dict[str, Path | bytes]
"""Address (without the leading slash) -> a file, or its content."""


@dataclass(frozen=True)
class ServedNet:
    """A net of the page.

    Attributes:
        folder: where its files lie; its name is the net's.
        size: (H, W) that its files take.
        classes: C names.
        palette: uint8 (C, 3).
        models: the `.tflite` file of each mode that there is: image in, label map out.
        examples: pictures that it may be shown; the first one is shown at the start.
        about: what it is and what it was trained on, for people; may be empty.
    """

    folder: Path
    size: tuple[int, int]
    classes: tuple[str, ...]
    palette: np.ndarray
    models: dict[str, Path]
    examples: tuple[Path, ...] = ()
    about: str = ""

    @property
    def name(self) -> str:
        return self.folder.name


def read_net(folder: Path) -> ServedNet:
    """Reads a bundle, or the folder of a net that ships with kfcn, and checks its files.

    Raises:
        BundleError: it is neither, or a file is missing or changed.
    """
    if (folder / "bundle.json").exists() or not (folder / "model.json").exists():
        return net_of(read_bundle(folder))
    card = read_json(folder / "model.json", "the folder of a net")
    try:
        files = {str(name): str(digest) for name, digest in card["files"].items()}
        size = card["tflite"]["size"]
    except (KeyError, TypeError, AttributeError):
        raise BundleError(_no_files(folder)) from None
    size, classes, palette = checked_labels(card, size, folder / "model.json")
    models = {}
    for mode in MODES:
        if f"{mode}.tflite" in files:
            models[mode] = check_file(folder, f"{mode}.tflite", files[f"{mode}.tflite"])
            check_tflite(models[mode])
    if not models:
        raise BundleError(_no_files(folder))
    examples = tuple(
        check_file(folder, name, digest)
        for name, digest in sorted(files.items())
        if re.fullmatch(r"example[^/]*\.(png|jpe?g)", name)
    )
    about = [card.get("description"), card.get("trained_on") and f"Trained on {card['trained_on']}"]
    text = ". ".join(str(part).rstrip(".") for part in about if part)
    return ServedNet(
        folder.resolve(), size, classes, palette, models, examples, text and f"{text}."
    )


def _no_files(folder: Path) -> str:
    return f"{folder}: its model.json names no .tflite files; kfcn-convert makes a bundle of a run"


def net_of(bundle: Bundle) -> ServedNet:
    """The net of a bundle that was read."""
    path = bundle.path.resolve()
    data = bundle.info.get("data")
    name = data.get("name") if isinstance(data, dict) else None
    return ServedNet(
        path,
        bundle.size,
        bundle.classes,
        bundle.palette,
        {model["mode"]: (path / model["file"]).resolve() for model in bundle.models},
        tuple((path / entry["image"]).resolve() for entry in bundle.info["golden"]),
        f"Trained on {name}." if isinstance(name, str) else "",
    )


def make_site(nets: Sequence[ServedNet], say: Say, examples: int = 1) -> Site:
    """The site that shows some nets.

    Args:
        nets: one or more.
        say: gets a line where LiteRT.js is fetched.
        examples: how many examples of each net belong to the site.

    Raises:
        MissingError: LiteRT.js cannot be fetched.
    """
    site: Site = {path.name: path for path in PAGE.iterdir()}
    litert = litert_js(say)
    for path in sorted(litert.rglob("*")):
        if path.is_file():
            site[f"litert/{path.relative_to(litert).as_posix()}"] = path
    # Import maps, by which it finds its other half, do not hold in workers.
    core = (litert / "core.js").read_text(encoding="utf-8")
    site["litert/core.js"] = core.replace('"@litertjs/wasm-utils"', '"./wasm-utils.js"').encode()
    described, taken = [], set()
    for net, name in zip(nets, _names(nets), strict=True):
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".") or "net"
        while slug in taken:
            slug += "-2"
        taken.add(slug)
        models = []
        for mode, path in net.models.items():
            address = _addressed(f"nets/{slug}/{mode}", path)
            site[address] = path
            models.append({"mode": mode, "file": address})
        shown = []
        for i, path in enumerate(net.examples[:examples]):
            shown.append(_addressed(f"nets/{slug}/example-{i}", path))
            site[shown[-1]] = path
        described.append(
            {
                "name": name,
                "about": net.about,
                "size": list(net.size),
                "classes": list(net.classes),
                "palette": net.palette.tolist(),
                "models": models,
                "examples": shown,
            }
        )
    site["nets.json"] = json.dumps({"nets": described}, ensure_ascii=False).encode()
    return site


def _names(nets: Sequence[ServedNet]) -> list[str]:
    """The names for people; those of one name have the folder before it in which they lie."""
    names = [net.name for net in nets]
    return [
        f"{net.folder.parent.name}/{net.name}" if names.count(net.name) > 1 else net.name
        for net in nets
    ]


def _addressed(address: str, path: Path) -> str:
    """An address of a file that is another one's where the content is: browsers keep files."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{address}-{digest[:12]}{path.suffix.lower()}"


def write_site(site: Site, out: Path, sources: Sequence[Path]) -> None:
    """Writes the site as plain files for any static host.

    Args:
        site: what to write.
        out: the folder to make.
        sources: folders that must not receive it.

    Raises:
        OutputError: there is something at `out`, or it lies in one of the sources.
        WriteError: it cannot be written.
    """
    check_new(out)
    for folder in (PAGE, *sources):
        if folder.resolve() in (out.resolve(), *out.resolve().parents):
            raise OutputError(f"{out} lies in {folder}, whose files the site is made of")
    with new_folder(out) as new:
        for address, content in site.items():
            file = new / address
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
