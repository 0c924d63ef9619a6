"""The commands that use the Hub, as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hf_metaprune import Bank
from hf_metaprune.cli import main
from tests.hub import LoopbackHub

FAST = ["--steps", "1", "--by", "leep", "--eval-steps", "0", "--precision", "fp32"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """Standard output (of a failure: standard error) of a command."""
    with pytest.raises(SystemExit) as error:
        main([str(a) for a in arguments])
        raise SystemExit(0)
    captured = capsys.readouterr()
    assert (error.value.code or 0) == code, captured.err
    return captured.err if code else captured.out


@pytest.mark.slow
def test_from_a_bank_to_a_voter(
    hub: LoopbackHub, own_bank: Bank, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "4 entries added, 0 removed in 1 commit" in run(capsys, "bank", "publish", own_bank.root, "me/bank")
    assert "Nothing had changed" in run(capsys, "bank", "publish", own_bank.root, "me/bank")
    description = json.loads(run(capsys, "bank", "show", "me/bank", "--json"))
    assert len(description["entries"]) == 4
    run(capsys, "adapt", "me/bank", photos, "--out", tmp_path / "pets", *FAST)
    assert hub.endpoint in run(capsys, "publish", tmp_path / "pets", "me/pets", "--license", "mit")
    run(capsys, "adapt", "me/bank", photos, "--out", tmp_path / "again", "--commons", "--allow", "me", *FAST)
    assert "Nothing had changed" in run(capsys, "publish", tmp_path / "pets", "me/pets", "--license", "mit")
    report = json.loads((tmp_path / "again" / "report.json").read_text())
    assert [n["id"] for n in report["neighbors"]] == ["me--pets"]
    answer = json.loads(run(capsys, "bank", "add", "me/bank", tmp_path / "pets", "--json"))
    assert answer["added"] == ["pets"]
    assert "0 entries added, 1 removed in 1 commit:" in run(capsys, "bank", "remove", "me/bank", "pets")
    before = hub.history("me/bank")[1].oid
    assert "pets" in run(capsys, "bank", "show", "me/bank", "--revision", before)
    assert "model, not a bank" in run(capsys, "bank", "show", tmp_path / "pets", code=1)
    assert "from_search" in run(capsys, "bank", "show", "me/pets", code=1)
    entry_id = next(iter(own_bank.entries))
    own_bank.remove(entry_id)
    assert "0 entries added, 1 removed" in run(capsys, "bank", "sync", own_bank.root, "me/bank")


def test_a_bank_of_ones_own_takes_and_loses_entries(
    own_bank: Bank, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = next(iter(own_bank))
    model = shutil.copytree(entry.folder, tmp_path / "Another-One")
    assert "1 entry added" in run(capsys, "bank", "add", own_bank.root, model)
    assert len(Bank.open(own_bank.root)) == 5
    other = shutil.copytree(entry.folder, tmp_path / "another-two")
    assert "has an entry 'another-one' already" in run(capsys, "bank", "add", own_bank.root, other, model, code=1)
    assert len(Bank.open(own_bank.root)) == 5  # none is added if one cannot be
    assert "no entry 'nobody'" in run(capsys, "bank", "remove", own_bank.root, "another-one", "nobody", code=1)
    answer = json.loads(run(capsys, "bank", "remove", own_bank.root, "another-one", "--json"))
    assert (answer["removed"], answer["entries"]) == (["another-one"], 4)
    assert "banks on the Hub" in run(capsys, "bank", "add", own_bank.root, model, "--create-pr", code=1)


def test_mistakes_are_told_in_one_line(
    hub: LoopbackHub,
    own_bank: Bank,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = run(capsys, "adapt", own_bank.root, photos, "--out", tmp_path / "x", "--allow", "me", code=1)
    assert "pass --commons" in output
    assert "no such repo" in run(capsys, "adapt", "me/nothing", photos, "--out", tmp_path / "x", code=1)
    monkeypatch.delenv("HF_TOKEN")
    output = run(capsys, "bank", "publish", own_bank.root, "me/bank", code=1)
    assert "hf auth login" in output
    assert "Traceback" not in output
