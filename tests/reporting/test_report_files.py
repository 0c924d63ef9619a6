"""Reports of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hf_metaprune.errors import FormatError
from hf_metaprune.reporting.report import AdaptReport
from hf_metaprune.reporting.report_files import load_report


def test_former_names_in_a_report_are_read_as_those_of_now(tmp_path: Path) -> None:
    values = AdaptReport(labels=["a", "b"], options={"neighbors": 1, "normalize": "layer"}).to_dict()
    former = {**values, "rivals": {"whole base": {"0": 0.5}}, "given": {"normalise": "layer"}}
    former["options"] = {"neighbours": 1, "normalise": "layer"}
    del former["baselines"]
    (tmp_path / "report.json").write_text(json.dumps(former))
    report = load_report(tmp_path / "report.json")
    assert report.options == {"neighbors": 1, "normalize": "layer"}
    assert report.given == {"normalize": "layer"}
    assert report.baselines == {"whole base": {0: 0.5}}
    assert "neighbors 1" in report.to_markdown()


@pytest.mark.parametrize(
    "values",
    [
        {"labels": ["*" * 500] * 1001},
        {"options": dict.fromkeys(("by", "vote", "head", "lr", "ema"), ["*" * 10_000] * 51)},
        {"seconds": {f"{i}" + "*" * 9000: 1.0 for i in range(60)}},
    ],
)
def test_texts_of_a_report_are_bounded_together(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"labels": ["a", "b"]} | values))
    with pytest.raises(FormatError, match="at most 500000 characters are read"):
        load_report(tmp_path / "report.json")
