"""What a run trains, and with what: the net, its loss, its optimizer, its average."""

import dataclasses

import keras

from kfcn.losses import SegmentationLoss
from kfcn.training.average import Average


@dataclasses.dataclass(frozen=True)
class Learner:
    """All that a training step reads and changes.

    Attributes:
        model: the net; made in the scope of the strategy, like the others.
        loss: what is minimised.
        optimizer: built for the net's trainable variables (`build_optimizer`).
        average: of the weights, to be validated and saved in their place; or None.
        gated_crf: weight of the gated CRF loss beside it; 0 for none.
        unlabelled: whether the batches have pictures without labels, which the average labels.
        recompute: compute maps again for the gradient instead of keeping them.
    """

    model: keras.Model
    loss: SegmentationLoss
    optimizer: keras.optimizers.Optimizer
    average: Average | None = None
    recompute: bool = False
    gated_crf: float = 0.0
    unlabelled: bool = False

    @property
    def classes(self) -> int:
        return self.model.output_shape[-1]

    @property
    def variables(self) -> list:
        """Everything that a checkpoint holds: weights, statistics, seeds, optimizer, average."""
        return [
            *self.model.trainable_variables,
            *self.model.non_trainable_variables,  # batch statistics and the seeds of dropout
            *self.optimizer.variables,
            *(self.average.variables if self.average else ()),
        ]
