"""The scripts that measure, at a small size."""

from __future__ import annotations

import os
import subprocess
import sys

import nltk
import pytest

from tests.conftest import REPO, needs_wordnet


@pytest.mark.slow
@needs_wordnet
def test_the_hubs_benchmark_keeps_its_budgets_of_requests_and_bytes() -> None:
    command = [sys.executable, str(REPO / "scripts" / "bench_hub.py"), "--entries", "6", "--repeats", "1"]
    variables = os.environ | {"PYTHONPATH": str(REPO), "NLTK_DATA": os.pathsep.join(map(str, nltk.data.path))}
    process = subprocess.run(command, capture_output=True, text=True, cwd=REPO, env=variables, timeout=900, check=False)
    assert process.returncode == 0, process.stderr
    rows = [line.strip("| ").split(" | ") for line in process.stdout.splitlines()[2:]]
    assert [row[0].split()[0] for row in rows] == ["publish"] * 3 + ["open"] + ["adapt"] * 2 + ["search"] * 3
    assert all("met" in row[-1] for row in rows)
