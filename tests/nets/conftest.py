import keras
import pytest
from base import WithoutKfcn
from small_nets import fit_statistics, randomize


@pytest.fixture(scope="session")
def without_kfcn():
    """One process for all nets: it takes seconds to start."""
    process = WithoutKfcn()
    yield process
    process.close()


@pytest.fixture(scope="class")
def net(request):
    """The net of a subclass of `NetTests`, with weights that answer something."""
    keras.utils.set_random_seed(0)
    return randomize(fit_statistics(request.cls.build()))
