import pytest

from kfcn.fused import batch_norm


@pytest.fixture(params=[False, True], ids=["one operation", "in parts"])
def in_parts(request, monkeypatch):
    """Both forward passes of batch normalisation, whatever the processor of the test."""
    monkeypatch.setattr(batch_norm, "onednn_lacks_avx512", lambda: request.param)
    return request.param
