"""The optimizer of a run: AdamW, or momentum SGD as Caffe has it."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kfcn.training.settings import Settings

NO_DECAY = ("gamma", "beta", "bias")  # not to be drawn to zero


def build_optimizer(
    config: Settings, variables: Sequence, steps: int, no_decay: Sequence[str] = NO_DECAY
) -> keras.optimizers.Optimizer:
    """The optimizer of the settings, built for the trainable variables.

    Its gradients must be summed over the replicas already, as `Step` does it.

    Args:
        config: settings of the run.
        variables: trainable variables of the net.
        steps: of the whole run, over which the rate falls as (1 - step / steps) ** power.
        no_decay: names of variables without weight decay.
    """
    schedule = keras.optimizers.schedules.PolynomialDecay(
        config.learning_rate, steps, end_learning_rate=0.0, power=config.power
    )
    if config.optimizer == "sgd":
        optimizer = CaffeSGD(schedule, config.momentum, config.weight_decay, no_decay)
    else:
        optimizer = AdamW(schedule, weight_decay=config.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=list(no_decay))
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


class _OfSums(keras.optimizers.Optimizer):
    """What takes gradients that are summed over the replicas; Keras would sum them once more.

    Keras offers no other way to pack the sum into one exchange with the rest of a step. (Where a
    later Keras does not ask this method, two replicas no longer learn what one does, and the tests
    say so.)
    """

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


class AdamW(_OfSums, keras.optimizers.AdamW):
    """Keras' own, for gradients that are summed over the replicas.

    Each variable is updated by one operation of TensorFlow, or two where it decays, in the place of
    fourteen and more: less time in every step and to trace the first. The values are the same
    within rounding (1 - beta_2 is computed in float32, not in float64: 5e-5 of it).
    """

    def _apply_weight_decay(self, variables: Sequence) -> None:
        """`update_step` does it: nothing comes between the two."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        dtype = variable.dtype
        beta_1, beta_2 = (tf.cast(beta, dtype) for beta in (self.beta_1, self.beta_2))
        step = tf.cast(self.iterations.value + 1, dtype)
        rate = tf.cast(learning_rate, dtype)
        index = self._get_variable_index(variable)
        if self._use_weight_decay(variable):
            tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.handle, alpha=rate * self.weight_decay, delta=variable
            )
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


class CaffeSGD(_OfSums, keras.optimizers.SGD):
    """v = momentum * v - rate * (gradient + decay * w); w = w + v.

    The decay is part of the gradient and so of the momentum (L2), as in Caffe and PyTorch; that
    of Keras' SGD is applied beside it and is 1 / (1 - momentum) times weaker. Biases learn at
    twice the rate, as in the nets of the paper (Long et al. 2015, section 4.3).

    Args:
        learning_rate: a number or a schedule.
        momentum: in [0, 1).
        decay: of all variables but those of `no_decay`.
        no_decay: names of variables.
    """

    def __init__(self, learning_rate: Any, momentum: float, decay: float, no_decay: Sequence[str]):
        super().__init__(learning_rate, momentum=float(momentum))
        self._decay, self._no_decay = decay, set(no_decay)
        self._factors: list[tuple[float, float]] = []

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        self._factors = [
            (2.0 if v.name == "bias" else 1.0, 0.0 if v.name in self._no_decay else self._decay)
            for v in variables
        ]

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        pace, decay = self._factors[self._get_variable_index(variable)]
        gradient = keras.ops.cast(gradient, variable.dtype) + decay * variable
        super().update_step(gradient, variable, pace * learning_rate)
