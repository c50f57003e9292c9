"""Targets as a test may use them: what would have to be fetched first is a reason to skip."""

import pytest
from kfcn_mobile.errors import TargetError
from kfcn_mobile.targets import make_targets


def ready(name):
    """The targets of a name, all of them startable; skips the test where one is not."""

    # A target says what it fetches before it does so.
    def fetching(line):
        pytest.skip(f"{name} is not ready (python -m kfcn_mobile.targets {name}): {line}")

    targets = make_targets(name, fetching)
    try:
        with targets[0]:
            pass
    except TargetError as error:
        pytest.skip(f"{name}: {error}")
    return targets
