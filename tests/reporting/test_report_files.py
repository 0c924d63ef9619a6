"""Reports of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

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
