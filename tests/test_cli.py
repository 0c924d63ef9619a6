"""The command line: what it prints, its exit codes, and that a mistake is one line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from hf_metaprune import cli
from hf_metaprune.bank.bank import Bank
from hf_metaprune.config import AdaptOptions, TrainingOptions, option_fields

FAST = ["--steps", "4", "--batch-size", "16", "--neighbours", "2", "--eval-steps", "0"]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    from rich.console import Console

    monkeypatch.setattr(cli, "out", Console(width=200))
    monkeypatch.setattr(cli, "err", Console(width=200, stderr=True))

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            cli.main([str(a) for a in arguments])
            code = 0
        except SystemExit as done:
            code = int(done.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def test_adapt_predict_inspect(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    code, shown, _ = run("adapt", bank_folder, photos, "--out", out, *FAST)
    assert code == 0
    assert "Neighbours that voted" in shown
    assert "of the base" in shown
    assert (out / "report.md").exists()
    image = next(photos.rglob("*.jpg"))
    code, shown, _ = run("predict", out, image)
    assert code == 0
    assert "%" in shown
    code, shown, _ = run("predict", out, image, "--json")
    assert json.loads(shown)[0]["image"] == str(image)
    code, shown, _ = run("inspect", out)
    assert code == 0
    assert "layer4.1.conv2" in shown
    code, shown, _ = run("inspect", out, "--json")
    assert json.loads(shown)["layers"]["layer1.0.conv1"]["size"] == 8


def test_json_is_all_there_is_on_standard_output(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    code, shown, _ = run("adapt", bank_folder, photos, "--out", tmp_path / "m", "--json", *FAST, "--dtype", "float16")
    assert code == 0
    assert 0 <= json.loads(shown)["accuracy"] <= 1
    code, shown, _ = run("bank", "show", bank_folder, "--json")
    assert len(json.loads(shown)["entries"]) == 4
    code, shown, _ = run("bank", "validate", bank_folder, "--json")
    assert json.loads(shown) == {"entries": 4, "problems": []}


def test_bank_commands(run, base_folder: Path, photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "bank"
    arguments = [
        "bank",
        "build",
        root,
        photos,
        "--base",
        base_folder,
        "--tasks",
        3,
        "--classes",
        2,
        "--method",
        "random",
    ]
    code, shown, _ = run(*arguments, "--steps", 2, "--ratio", 0.5, "--exclude", "violin")
    assert code == 0
    assert "3 of 3" in shown
    code, shown, _ = run(*arguments, "--steps", 2, "--ratio", 0.5, "--exclude", "violin")
    assert "has 3 entries" in shown
    assert " of 3:" not in shown  # nothing was made again
    assert not any("violin" in e.labels for e in Bank.open(root))
    code, shown, _ = run("bank", "show", root)
    assert code == 0
    assert "random" in shown
    code, shown, _ = run("bank", "validate", root)
    assert (code, "0 problems" in shown) == (0, True)
    entry = next(iter(Bank.open(root)))
    (entry.folder / "model.safetensors").unlink()
    code, shown, _ = run("bank", "validate", root)
    assert code == 1
    assert entry.id in shown
    code, shown, _ = run("bank", "validate", root, "--repair")
    assert "2 entries" in shown


def test_the_demo(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    code, shown, _ = run("demo", "--bank", bank_folder, "--data", photos, "--out", tmp_path / "demo")
    assert code == 0
    assert "voted" in shown
    assert "without a bank" in shown
    assert (tmp_path / "demo" / "comparison.png").exists()
    code, shown, _ = run("demo", "--bank", bank_folder, "--data", photos, "--out", tmp_path / "demo", "--json")
    assert {"accuracy", "accuracy_without_bank", "seconds"} <= set(json.loads(shown))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bank", "show", "nosuch"], "is not a bank"),
        (["adapt", "nosuch", "nosuch", "--out", "x"], "is not a bank"),
        (["predict", "nosuch", "a.png"], "cannot be read"),
        (["inspect", "nosuch"], "cannot be read"),
        (["bank", "build", "b", "d", "--base", "nosuch"], "cannot be read"),
        (["demo", "--bank", "nosuch"], "does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(
    run, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown, errors = run(*arguments)
    assert code == 1
    assert shown == ""
    assert message in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []  # nothing half written


def test_wrong_usage_is_exit_code_2(run) -> None:
    assert run("adapt")[0] == 2
    assert run("adapt", "a", "b", "--out", "c", "--steps", "many")[0] == 2
    assert run("nosuch")[0] == 2


def test_debug_shows_the_traceback(run, tmp_path: Path) -> None:
    from hf_metaprune.errors import FormatError

    with pytest.raises(FormatError):
        run("--debug", "bank", "show", tmp_path)


def test_version_and_help(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    from hf_metaprune import __version__

    assert __version__ in run("--version")[1]
    shown = run("adapt", "--help")[1]
    for name, f in {**option_fields(AdaptOptions), **option_fields(TrainingOptions)}.items():
        assert f"--{name.replace('_', '-')}" in shown
        assert f.metadata["help"].split()[0] in shown


def test_places_that_cannot_be_written_are_found_before_the_work(
    run, bank_folder: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    code, _, errors = run("adapt", bank_folder, photos, "--out", tmp_path / "full", *FAST)
    assert (code, "exists already" in errors) == (1, True)
    assert (tmp_path / "full" / "file").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    code, _, errors = run("adapt", bank_folder, photos, "--out", tmp_path / "file", *FAST)
    assert (code, "a file, not a folder" in errors) == (1, True)
    code, _, errors = run("adapt", bank_folder, photos, "--out", tmp_path / "file" / "below", *FAST)
    assert (code, "a file, not a folder" in errors) == (1, True)


def test_a_full_disk_leaves_nothing_behind(
    run, bank_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from hf_metaprune.models import saving

    def full(*_args: object, **_kw: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    code, _, errors = run("adapt", bank_folder, photos, "--out", tmp_path / "out", *FAST)
    assert code == 1
    assert "the disk is full" in errors
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_said(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
    code, _, errors = run("adapt", bank_folder, photos, "--out", closed / "out", *FAST)
    assert (code, "permission denied" in errors) == (1, True)


def test_ctrl_c_leaves_nothing_half_written(
    run, bank_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_metaprune import result

    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(result, "save_model", interrupted)
    code, _, errors = run("adapt", bank_folder, photos, "--out", tmp_path / "out", *FAST)
    assert code == 130
    assert "nothing is half written" in errors
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".tmp-*"))
