import pytest

from kfcn.training import recorder


@pytest.fixture(scope="module", autouse=True)
def _drawn_at_the_end():
    """Curves and overlays take a third of so short a run: those are drawn that stay.

    The session's `run` is drawn after each epoch.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "is_drawn", lambda epoch, epochs: epoch == epochs)
        yield
