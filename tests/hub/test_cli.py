"""The commands that use the Hub, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_metaprune import Bank
from hf_metaprune.cli import main
from tests.hub import LoopbackHub

FAST = ["--steps", "1", "--by", "leep", "--eval-steps", "0", "--precision", "fp32"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """Standard output (of a failure: standard error) of a command."""
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
        raise SystemExit(0)
    captured = capsys.readouterr()
    assert (done.value.code or 0) == code, captured.err
    return captured.err if code else captured.out


def test_from_a_bank_to_a_voter(
    hub: LoopbackHub, own_bank: Bank, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "4 entries added, 0 removed in 1 commit" in run(capsys, "bank", "publish", own_bank.root, "me/bank")
    assert "0 entries added" in run(capsys, "bank", "publish", own_bank.root, "me/bank")
    shown = json.loads(run(capsys, "bank", "show", "me/bank", "--json"))
    assert len(shown["entries"]) == 4
    run(capsys, "adapt", "me/bank", photos, "--out", tmp_path / "pets", *FAST)
    assert hub.endpoint in run(capsys, "publish", tmp_path / "pets", "me/pets", "--license", "mit")
    run(capsys, "adapt", "me/bank", photos, "--out", tmp_path / "again", "--commons", "--allow", "me", *FAST)
    report = json.loads((tmp_path / "again" / "report.json").read_text())
    assert [n["id"] for n in report["neighbours"]] == ["me--pets"]
    added = json.loads(run(capsys, "bank", "add", "me/bank", tmp_path / "pets", "--json"))
    assert added["added"] == ["pets"]
    assert "0 entries added, 1 removed" in run(capsys, "bank", "remove", "me/bank", "pets")
    gone = next(iter(own_bank.entries))
    own_bank.remove(gone)
    assert "0 entries added, 1 removed" in run(capsys, "bank", "sync", own_bank.root, "me/bank")


def test_mistakes_are_told_in_one_line(
    hub: LoopbackHub,
    own_bank: Bank,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = run(capsys, "adapt", own_bank.root, photos, "--out", tmp_path / "x", "--allow", "me", code=1)
    assert "pass --commons" in said
    assert "no such repo" in run(capsys, "adapt", "me/nothing", photos, "--out", tmp_path / "x", code=1)
    monkeypatch.delenv("HF_TOKEN")
    said = run(capsys, "bank", "publish", own_bank.root, "me/bank", code=1)
    assert "hf auth login" in said
    assert "Traceback" not in said
