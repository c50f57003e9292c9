"""What the CPU can do at most: a large matrix product by TensorFlow.

TensorFlow's (oneDNN) was faster than NumPy's (OpenBLAS) and torch's (MKL) on an AMD EPYC.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from kfcn_tools.benchmarks.timing import SIDE


class Net:
    """The interface is that of `keras_nets.Net`."""

    parameters = None
    versions = {}  # noqa: RUF012

    def __init__(self, spec: dict):
        self._matrix = tf.random.uniform((SIDE, SIDE))

    def infer(self, count: int) -> None:
        """One product of two float32 matrices of SIDE x SIDE."""
        float(tf.matmul(self._matrix, self._matrix)[0, 0])
