"""The process of one net: builds it, then obeys commands.

    python -m kfcn_tools.benchmarks.nets.child '{"maker": "torchvision", "net": "fcn_resnet50"}'

Each line on standard input is a command, each line on standard output its answer in JSON:
`infer B` and `train B` do one step with a batch of B images, `labels H W` finds the labels of a
picture, `memory` gives the greatest resident memory so far, `flops` the operations of one image
forwards, and `quit` ends the process.
"""

import importlib
import json
import os
import sys

from kfcn.machine import use_onednn
from kfcn_tools.benchmarks.timing import peak_mib

# Which module knows the nets of a maker. Each has `Net(spec)`.
MODULES = {
    "kfcn": "keras_nets",
    "KerasHub": "keras_nets",
    "torch": "torch_nets",
    "torchvision": "torch_nets",
    "LiteRT": "litert_nets",
    "matrix": "product",
}


def main() -> int:
    """Serves until `quit` or the end of standard input."""
    # What a library prints goes to standard error, not among the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(**content):
        print(json.dumps(content), file=answers, flush=True)

    use_onednn()  # as kfcn's commands do; a stranger's Keras net gains by it too
    spec = json.loads(sys.argv[1])
    module = importlib.import_module(f"kfcn_tools.benchmarks.nets.{MODULES[spec['maker']]}")
    imported = peak_mib()
    net = module.Net(spec)
    answer(versions=net.versions, parameters=net.parameters, imported=imported)
    for line in sys.stdin:
        command, *numbers = line.split()
        if command == "quit":
            break
        if command == "memory":
            answer(mib=peak_mib())
        elif command == "flops":
            answer(flops=net.flops())
        elif command in ("infer", "train", "labels"):
            getattr(net, command)(*map(int, numbers))
            answer()
        else:
            raise ValueError(f"received the command {line!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
