"""The scripts that measure, at a small size."""

from __future__ import annotations

import runpy
import sys

import pytest

from tests.conftest import REPO, needs_wordnet


@pytest.mark.slow
@needs_wordnet
def test_the_hubs_benchmark_keeps_its_budgets_of_requests_and_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = REPO / "scripts" / "bench_hub.py"
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setattr(sys, "argv", [str(script), "--entries", "6", "--repeats", "1"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert not end.value.code
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].split()[0] for row in rows] == ["publish"] * 3 + ["open"] + ["adapt"] * 2 + ["search"] * 3
    assert all("met" in row[-1] for row in rows)
