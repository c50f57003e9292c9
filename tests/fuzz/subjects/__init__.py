"""What is damaged, how it is read, and what must hold of everything that is not refused.

A subject is called with a random generator and an empty folder. It writes one damaged file, reads
it and returns whether it was read or refused; an AssertionError says that it was read wrongly.
"""

from subjects import annotations, folders, pictures, runs, stored

SUBJECTS = {
    "images": pictures.image,
    "masks": pictures.label_map,
    "labelme": annotations.labelme,
    "coco": annotations.coco,
    "texts": annotations.text,
    "cards": stored.card,
    "bundles": stored.bundle,
    "checkpoints": runs.checkpoint,
    "configs": runs.config,
    "nets": runs.net_card,
    "clusters": runs.cluster,
    "folders": folders.data_folder,
    "manifests": stored.manifest,
    "outlines": stored.outline,
}
