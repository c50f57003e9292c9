"""What the run folder keeps of how a run is computed."""

import json

import pytest

from kfcn.training import run_folder


@pytest.mark.parametrize(
    ("then", "now", "own", "expected"),
    [
        ("avx512", "avx2", "avx512", "; unset ONEDNN_MAX_CPU_ISA to resume bit for bit"),
        ("avx2", "avx512", "avx512", "; set ONEDNN_MAX_CPU_ISA=AVX2 to resume bit for bit"),
        ("avx2", "sse41", "avx2", "; unset ONEDNN_MAX_CPU_ISA to resume bit for bit"),
        ("avx512", "avx2", "avx2", ""),  # the run came from elsewhere
        ("avx2", "avx2", "avx512", None),
        (None, "avx2", "avx512", None),  # begun before it was stored
        (["avx2"], "avx512", "avx512", None),
        ("avx2", "", "", None),
    ],
)
def test_other_instructions_than_at_the_start_are_told(
    then, now, own, expected, tmp_path, monkeypatch
):
    """By them kfcn chooses what a step traces."""
    monkeypatch.setattr(run_folder, "onednn_is_on", lambda: True)
    monkeypatch.setattr(run_folder, "onednn_instructions", lambda: now)
    monkeypatch.setattr(run_folder, "instruction_set", lambda: own)
    folder = run_folder.RunFolder(tmp_path)
    machine = {"onednn": True} | ({} if then is None else {"onednn_instructions": then})
    folder.config.write_text(json.dumps({"settings": {}, "machine": machine}))
    found = folder.other_kernels()
    if expected is not None:
        expected = f"oneDNN used {then.upper()} before and uses {now.upper()} now{expected}"
    assert found == expected
    assert run_folder.machine()["onednn_instructions"] == now
