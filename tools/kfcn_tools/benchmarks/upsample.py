"""Time of the last, fixed upsampling: one dense transposed convolution against groups of channels.

A dense transposed convolution multiplies every class by every class; groups of channels, as saved
nets of many classes have them, do less of that, and class by class, as kfcn traces both
(`kfcn.fused`), is none of it. Run as `python -m kfcn_tools.benchmarks.upsample`; prints
milliseconds for one image of 480x360 and the ratio to dense, the median over alternating
runs, forward and with the gradient.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

from kfcn.machine import use_onednn
from kfcn_tools.benchmarks.timing import machine_and_onednn


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns 0."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("--classes", type=int, nargs="+", default=[12, 21, 48, 81, 150])
    cli.add_argument("--groups", type=int, nargs="+", default=[8, 16, 32])
    cli.add_argument("--repeats", type=int, default=7)
    args = cli.parse_args(argv)
    use_onednn()

    import keras
    import tensorflow as tf

    from kfcn.fused.enlargements import by_channel
    from kfcn.graph import replay
    from kfcn.nets import upsample

    def layer(classes, group):
        upsample.GROUP = group
        coarse = keras.Input((45, 60, classes))
        return keras.Model(coarse, upsample.upsample(coarse, 8, "up"))

    def runners(net, traced=False):
        instead = by_channel(net) if traced else {}

        @tf.function
        def forward(x):
            return replay(net, x, instead)

        @tf.function
        def both(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.reduce_sum(forward(x) ** 2)
            return tape.gradient(y, x)

        return forward, both

    default = upsample.GROUP
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}; {machine_and_onednn()}")
    others = [f"group {g}" for g in args.groups] + ["as traced", "traced, groups"]
    print("classes  what      dense ms  " + "  ".join(f"{name:>16}" for name in others))
    for classes in args.classes:
        x = tf.random.stateless_normal((1, 45, 60, classes), (0, 1))
        ways = {"dense": runners(layer(classes, classes))}
        ways |= {f"group {g}": runners(layer(classes, g)) for g in args.groups}
        ways["as traced"] = runners(layer(classes, classes), traced=True)
        ways["traced, groups"] = runners(layer(classes, default), traced=True)
        for which, what in enumerate(("forward", "gradient")):
            times = {key: [] for key in ways}
            for repeat in range(args.repeats + 1):
                for key, way in ways.items():
                    started = time.perf_counter()
                    way[which](x).numpy()
                    if repeat:  # the first run traces
                        times[key].append(1e3 * (time.perf_counter() - started))
            dense = statistics.median(times["dense"])
            medians = [statistics.median(times[name]) for name in others]
            cells = [f"{median:8.1f} ({dense / median:4.1f}x)" for median in medians]
            print(f"{classes:7}  {what:8} {dense:9.1f}  " + "  ".join(cells))
    upsample.GROUP = default
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
