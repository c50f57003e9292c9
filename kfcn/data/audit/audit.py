"""The label audit: everything about a data set that is better known before training than after.

`check` in `kfcn.data.audit.check` is its quick part, which stops at the first error. The audit goes
on, in the same words, and tells what is no error as well: duplicates across splits, images
without a labelled pixel, classes that never occur, how masks are stored, sizes.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
from typing import Any

import numpy as np
from PIL import Image

from kfcn.data.audit.check import (
    class_weights,
    label_error,
    label_histogram,
    nothing_in,
    one_class_alone,
    size_error,
    unfit,
)
from kfcn.data.dataset import Counts, Dataset, map_samples
from kfcn.data.formats.images import IMAGE_SUFFIXES
from kfcn.data.formats.label_maps import is_grey, open_mask
from kfcn.errors import DataError, UsageError, counted, shortlist
from kfcn.files import open_file
from kfcn.labels import IGNORE

_COLOURED = ("RGB ", "RGBA ")  # as kinds of masks begin


@dataclasses.dataclass
class SplitAudit:
    """What the audit saw of one split.

    Attributes:
        dataset: the split.
        counts: of the sound pairs.
        labels: int64 `(256,)`, pixels of each label value, unsound pairs too.
        class_images: int64 `(C,)`, images in which the class occurs.
        sizes: `(height, width)` -> images.
        masks: how label maps are stored -> images.
        errors: what training refuses, by kind: "unreadable", "size", "label", "empty".
        void: names of images of which no pixel is labelled.
        digests: content hash of the pixels -> names of the images that have them; of those with a
            labelled pixel.
        turned: EXIF's orientation -> names of the images with a mask file that have it.
    """

    dataset: Dataset
    counts: Counts
    labels: np.ndarray
    class_images: np.ndarray
    sizes: collections.Counter
    masks: collections.Counter
    errors: dict[str, list[str]]
    void: list[str]
    digests: dict[str, list[str]]
    turned: dict[int, list[str]]


@dataclasses.dataclass
class _Look:
    """What is to be known of one pair."""

    name: str
    mask: str
    size: tuple[int, int] | None = None
    histogram: np.ndarray | None = None
    digest: str = ""
    kind: str = ""
    error: str = ""
    orientation: int = 1


def _look(dataset: Dataset, index: int) -> _Look:
    look = _Look(f"number {index}", _mask_kind(dataset, index))
    try:
        look.name = dataset.file_name(index)
        sample = dataset[index]
    except DataError as error:
        look.kind, look.error = "unreadable", str(error)
        return look
    look.size = sample.image.shape[:2]
    content = repr(sample.image.shape).encode() + sample.image.tobytes()
    look.digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    look.histogram = label_histogram(sample.labels)
    file = dataset.label_file(index)
    if file is not None and file.suffix.lower() in IMAGE_SUFFIXES:
        look.orientation = dataset.head(index).orientation
    for kind, error in (
        ("size", size_error(dataset, index, sample)),
        ("label", label_error(dataset, index, look.histogram)),
    ):
        if error and not look.error:
            look.kind, look.error = kind, error
    return look


def _mask_kind(dataset: Dataset, index: int) -> str:
    """How the label map is stored: "palette PNG", "RGB PNG", "grey as RGB PNG", "png", ..."""
    path = dataset.label_file(index)
    if path is None:
        return "no files"
    try:
        with open_file(path) as file, Image.open(file) as image:
            mode = {"P": "palette", "L": "grey", "1": "black and white", "I;16": "16-bit grey"}
            kind = f"{mode.get(image.mode, image.mode)} {image.format}"
    except Exception:  # Pillow raises many kinds for what is no picture; its reader names it
        return path.suffix.removeprefix(".") or "unknown"
    if not kind.startswith(_COLOURED):
        return kind
    with contextlib.suppress(DataError, UsageError):  # named by the reader
        if is_grey(open_mask(path, str(path), dataset.page(index)).numbers):
            return f"grey as {kind}"
    return kind


def audit_split(
    dataset: Dataset,
    progress: bool = False,
    strict: bool = False,
    training: bool | None = None,
) -> SplitAudit:
    """Looks at every pair of a split and collects what it finds.

    Args:
        dataset: the split. One that was looked at when it was prepared is not looked at again.
        progress: show a progress bar.
        strict: stop at the first error.
        training: whether it is trained on, which one class alone does not allow; None for what
            its name says.

    Raises:
        DataError: an error was found, and `strict` is set.
    """
    classes = len(dataset.classes)
    found = SplitAudit(
        dataset,
        Counts.nothing(classes),
        np.zeros(256, np.int64),
        np.zeros(classes, np.int64),
        collections.Counter(),
        collections.Counter(),
        collections.defaultdict(list),
        [],
        collections.defaultdict(list),
        collections.defaultdict(list),
    )
    known = dataset.counts if strict else None
    if known is not None:
        found.counts = known
        found.class_images += known.image_pixels > 0
    for look in () if known is not None else map_samples(dataset, _look, "checking", progress):
        if look.error and strict:
            raise DataError(look.error)
        found.masks[look.mask] += 1
        if look.error:
            found.errors[look.kind].append(look.error)
        if look.histogram is None:
            continue
        found.sizes[look.size] += 1
        found.labels += look.histogram
        if not look.error:
            found.counts = found.counts.add(look.histogram)
            found.class_images += look.histogram[:classes] > 0
            if look.histogram[:classes].any():
                found.digests[look.digest].append(look.name)
            else:
                found.void.append(look.name)
        if look.orientation != 1:
            found.turned[look.orientation].append(look.name)
    fault = nothing_in(dataset) or (not found.errors and unfit(dataset, found.counts, training))
    if fault:
        found.errors["empty"].append(fault)
        if strict:
            raise DataError(fault)
    return found


def before_training(
    train: Dataset, validation: Dataset, progress: bool = False
) -> tuple[Counts, list[str]]:
    """Looks at what a run relies on, once, before it starts.

    Returns:
        The counts of the training split, and the audit's notes and warnings.

    Raises:
        DataError: the first error that was found.
    """
    first = audit_split(train, progress, strict=True, training=True)
    if train.split == validation.split:
        again = (
            f"{train.split} is used for training and validation, so all metrics will be too "
            "optimistic"
        )
        audit = Audit([first])
        return first.counts, [*audit.notes, *audit.warnings, again]
    audit = Audit([first, audit_split(validation, progress, strict=True, training=False)])
    return first.counts, audit.notes + audit.warnings


@dataclasses.dataclass
class Audit:
    """The audit of several splits of one data set."""

    splits: list[SplitAudit]

    @property
    def errors(self) -> list[str]:
        """Everything that training refuses."""
        return [e for split in self.splits for errors in split.errors.values() for e in errors]

    @property
    def duplicates(self) -> list[tuple[str, str]]:
        """Pairs of images with the same pixels, `split: name` each; across splits they come first.

        A validation image that is also trained on makes every figure of the run too good.
        """
        seen = collections.defaultdict(list)
        for split in self.splits:
            for digest, names in split.digests.items():
                seen[digest] += [(split.dataset.split, name) for name in names]
        pairs = [
            (first, other)
            for places in seen.values()
            for first, other in itertools.pairwise(places)
        ]
        pairs.sort(key=lambda pair: pair[0][0] == pair[1][0])
        return [(f"{a[0]}: {a[1]}", f"{b[0]}: {b[1]}") for a, b in pairs]

    @property
    def warnings(self) -> list[str]:
        """What training does not refuse, and a person should know."""
        found = []
        across = [(a, b) for a, b in self.duplicates if a.split(":")[0] != b.split(":")[0]]
        if across:
            found.append(
                f"{counted(len(across), 'image is', 'images are')} in two splits, with the same "
                f"pixels: {across[0][0]} is {across[0][1]}; metrics measured on them are too "
                "optimistic"
            )
        if len(self.duplicates) > len(across):
            twice = counted(len(self.duplicates) - len(across), "image appears", "images appear")
            found.append(f"{twice} twice in one split")
        for split in self.splits:
            title = split.dataset.split
            if split.void:
                found.append(
                    f"{title}: {counted(len(split.void), 'image has', 'images have')} no labelled "
                    f"pixel, such as {split.void[0]}"
                )
            names = split.dataset.classes.names
            absent = [n for n, images in zip(names, split.class_images, strict=True) if not images]
            if absent and split.counts.images:
                found.append(f"{title}: no pixel of {shortlist(absent)}")
            if (
                split.counts.images
                and not split.errors
                and (few := one_class_alone(split.dataset, split.counts))
            ):
                found.append(few)
            for orientation, images in sorted(split.turned.items()):
                turned = counted(len(images), "image is", "images are")
                found.append(
                    f"{title}: {turned} turned upright by the EXIF orientation {orientation}, such "
                    f"as {images[0]}; their label maps are not: look at the overlays"
                )
            coloured = sum(n for kind, n in split.masks.items() if kind.startswith(_COLOURED))
            if coloured:
                stored = counted(coloured, "mask is", "masks are")
                found.append(f"{title}: {stored} stored in RGB colours")
        return found

    @property
    def notes(self) -> list[str]:
        """What the data sets say of themselves, such as files that they left out."""
        return list(dict.fromkeys(note for split in self.splits for note in split.dataset.notes))

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "data": self.splits[0].dataset.name,
            "classes": list(self.splits[0].dataset.classes.names),
            "splits": {split.dataset.split: _split_dict(split) for split in self.splits},
            "duplicates": self.duplicates,
            "notes": self.notes,
            "warnings": self.warnings,
            "errors": self.errors,
        }

    def table(self) -> str:
        """What a person wants to see in a terminal."""
        lines = []
        for split in self.splits:
            lines += _split_lines(split)
        groups = {"notes": self.notes, "warnings": self.warnings, "errors": self.errors}
        for title, messages in groups.items():
            if messages:
                lines += [f"{title}:", *(f"  {line}" for line in messages[:20])]
                lines += [f"  and {len(messages) - 20} more"] if len(messages) > 20 else []
        if not self.errors:
            lines.append("no errors: ready for training")
        return "\n".join(lines)


def _split_dict(split: SplitAudit) -> dict[str, Any]:
    names, counts = split.dataset.classes.names, split.counts
    median, root = (class_weights(counts, kind) for kind in ("median", "sqrt"))
    share = counts.pixels / max(counts.pixels.sum(), 1)
    return {
        "images": len(split.dataset),
        "label_values": {str(v): int(split.labels[v]) for v in np.flatnonzero(split.labels)},
        "ignored_share": counts.ignored / max(counts.ignored + int(counts.pixels.sum()), 1),
        "classes": {
            name: {
                "pixels": int(counts.pixels[i]),
                "share": float(share[i]),
                "images": int(split.class_images[i]),
                "weight_median": round(float(median[i]), 4),
                "weight_sqrt": round(float(root[i]), 4),
            }
            for i, name in enumerate(names)
        },
        "sizes": {f"{h}x{w}": n for (h, w), n in split.sizes.most_common()},
        "masks": dict(split.masks),
        "all_ignored": split.void,
        "errors": dict(split.errors),
    }


def _split_lines(split: SplitAudit) -> list[str]:
    facts = _split_dict(split)
    width = max(map(len, (*facts["classes"], "class")))
    values = [v for v in facts["label_values"] if v != str(IGNORE)]
    lines = [
        f"{split.dataset.name}/{split.dataset.split}: {counted(facts['images'], 'image')}, "
        f"{sizes_in_words(split)}",
        f"masks: {', '.join(f'{n} {kind}' for kind, n in split.masks.most_common())}; "
        f"{counted(len(values), 'label value')}, {100 * facts['ignored_share']:.1f} % ignored",
        f"{'class':{width}}  share of pixels  images  weight median   sqrt",
    ]
    lines += [
        f"{name:{width}} {100 * c['share']:14.3f} % {c['images']:7} "
        f"{c['weight_median']:14.3f} {c['weight_sqrt']:6.3f}"
        for name, c in facts["classes"].items()
    ]
    return [*lines, ""]


def sizes_in_words(split: SplitAudit) -> str:
    """How large the images are, in one line."""
    if not split.sizes:
        return "no size"
    (h, w), most = split.sizes.most_common(1)[0]
    if len(split.sizes) == 1:
        return f"all {h}x{w}"
    heights, widths = zip(*split.sizes, strict=True)
    return (
        f"{len(split.sizes)} sizes from {min(heights)} to {max(heights)} high and {min(widths)} to "
        f"{max(widths)} wide, mostly {h}x{w} ({most})"
    )
