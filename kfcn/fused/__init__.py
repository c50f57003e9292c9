"""What a net of kfcn does, in the operations that TensorFlow is quickest at.

A saved net is made of stock layers that work for any size, and some of them are slow: Keras spells
batch normalisation out over the whole map, `kfcn.nets.upsample` enlarges by a transposed
convolution between all classes and cuts by gathers. The layers stay as they are. Each module here
finds one kind of them in a net and says which function to call instead, which gives the same values
to rounding; `kfcn.graph.replay` makes the calls of the net with these functions among them.

Two other ways lead to the same graph, operation by operation, in the same time. To put the
functions into the layers while a function is traced, as kfcn once did, makes threads that trace
take turns, and a layer is not what it looks like meanwhile. A twin model of operations that call
the layers is a second graph to keep beside the net, and gives nothing that a replay of the first
does not.
"""

from kfcn.fused.inference import run_net

__all__ = ["run_net"]
