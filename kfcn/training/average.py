"""The running average of a net's weights, which is validated, shown and saved in their place.

Of noisy steps the average lies nearer to the minimum than any of them (Polyak and Juditsky 1992).
Training itself goes on with the raw weights and is the same as without it.

Keras' own (`use_ema` of its optimizers) holds on to the weights of the first step: at a momentum
of 0.998 they are still 83 % of the average after 90 steps. It has no warm-up, so the average stands
here, beside whichever optimizer there is.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from kfcn.fused.inference import inference_functions
from kfcn.graph import replay


class Average:
    """Exponential moving average of a net's weights; make it in the strategy's scope.

    After step t it moves by 1 - m of its distance to the weights, where m is
    min(momentum, (1 + t) / (10 + t)), the warm-up of `tf.train.ExponentialMovingAverage`: it
    forgets the start within a few steps and spans no more than about the last ninth of a run.

    The moving statistics of batch normalisation are averaged alike, as they are in the released
    EfficientNets: the raw ones belong to the weights of the last twenty steps, and the mean
    activation of averaged weights is, to first order, the average of the mean activations.

    Args:
        model: the net with its first weights; the average starts there.
        momentum: in (0, 1); the average spans about 1 / (1 - momentum) steps.

    Attributes:
        variables: float variables, one for each of `model.weights`.
    """

    def __init__(self, model: keras.Model, momentum: float):
        self.momentum = momentum
        self._model = model
        self._weights = model.weights  # without the seeds of dropout
        self.variables = [
            keras.Variable(keras.ops.convert_to_numpy(w), dtype=w.dtype, trainable=False)
            for w in self._weights
        ]

    def update(self, strategy: tf.distribute.Strategy, steps: tf.Tensor | int) -> None:
        """Takes up the weights after a step, on each device by itself; in cross-replica context.

        Args:
            strategy: in whose scope the weights and the average were made.
            steps: t, done with this one.
        """
        t = tf.cast(steps, tf.float32)
        share = 1.0 - tf.minimum(self.momentum, (1.0 + t) / (10.0 + t))

        def move(average, weight):
            average.assign_add(share * (weight - average))

        for average, weight in zip(self.variables, self._weights, strict=True):
            strategy.extended.update(average.value, move, args=(weight.value,))

    def inference(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """The averaged net in inference mode, to be traced; in replica context.

        Returns:
            A function of images float32 `(B, H, W, 3)` that gives the logits.
        """
        functions = inference_functions(self._model)  # it looks at weights: not while tracing

        @tf.autograph.experimental.do_not_convert  # it holds nothing to convert
        def forward(images):
            values = [variable.value for variable in self.variables]
            with keras.StatelessScope(list(zip(self._weights, values, strict=True))):
                return replay(self._model, images, functions)

        return forward
