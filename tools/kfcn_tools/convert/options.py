"""What may be asked of int8 and mixed files; without what it takes to make them."""

from dataclasses import dataclass

RANGES = ("min-max", "percentile", "least-squares")
"""How ranges may be found (`kfcn_tools.convert.int8.ranges`)."""


@dataclass(frozen=True)
class Int8Options:
    """How int8 files are made; the defaults are what measured best.

    Attributes:
        equalize: equal channel ranges across layers.
        correct_rounding: round weights so that their errors cancel, and the biases with them.
        ranges: how they are found, one of `RANGES`.
        min_agreement: where the layer search of `mixed` stops.
        qat_epochs: passes of quantisation-aware fine-tuning over the training images. It learns
            with weights rounded to the nearest, and so they stay after it.
    """

    equalize: bool = False
    correct_rounding: bool = True
    ranges: str = "least-squares"
    min_agreement: float = 0.993
    qat_epochs: int = 0
