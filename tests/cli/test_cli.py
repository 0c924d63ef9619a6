"""The command line: what it prints, its exit codes, and that a mistake is one line."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_metaprune import cli
from hf_metaprune.bank.bank import Bank
from hf_metaprune.config import AdaptOptions, TrainingOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import StorageError
from hf_metaprune.options import option_fields
from hf_metaprune.pruner import MetaPruner
from tests.conftest import REPO
from tests.tiny import make_vit_base

FAST = ["--steps", "4", "--batch-size", "16", "--neighbors", "2", "--eval-steps", "0"]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            cli.main([str(a) for a in arguments])
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.slow
def test_a_sweep_writes_models_and_the_curve(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "sizes"
    code, output, _ = run("sweep", bank_folder, photos, "--out", out, "--ratios", "0.4,0.8", *FAST)
    assert code == 0
    assert "0.4" in output
    assert sorted(path.name for path in out.iterdir()) == ["r0.4", "r0.8", "sweep.json", "sweep.md", "sweep.png"]
    models = json.loads((out / "sweep.json").read_text())["models"]
    assert [model["ratio"] for model in models] == [0.4, 0.8]
    assert models[0]["macs"] > models[1]["macs"]
    assert "| 0.8 |" in (out / "sweep.md").read_text()
    assert (out / "r0.8" / "report.md").exists()
    code, _, errors = run("sweep", bank_folder, photos, "--out", tmp_path / "x", "--ratios", "many")
    assert (code, "must be numbers" in errors) == (1, True)
    code, _, errors = run("sweep", bank_folder, photos, "--out", out, "--ratios", "0.5")
    assert (code, "not empty" in errors or "exists" in errors) == (1, True)


@pytest.mark.slow
def test_budgets_on_the_command_line(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    code, output, _ = run("adapt", bank_folder, photos, "--out", tmp_path / "m", *FAST, "--max-params", 20000, "--json")
    assert code == 0
    assert json.loads(output)["params"] <= 20000
    code, _, errors = run("adapt", bank_folder, photos, "--out", tmp_path / "n", *FAST, "--max-macs", 5)
    assert code == 1
    assert "the smallest sub-network of this base has" in errors


def test_adapt_predict_inspect(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    code, output, _ = run("adapt", bank_folder, photos, "--out", out, *FAST)
    assert code == 0
    assert "Neighbors that voted" in output
    assert "of the base" in output
    assert (out / "report.md").exists()
    image = next(photos.rglob("*.jpg"))
    code, output, _ = run("predict", out, image)
    assert code == 0
    assert "%" in output
    code, output, _ = run("predict", out, image, "--json")
    assert json.loads(output)[0]["image"] == str(image)
    bad = tmp_path / "shots" / "bad.jpg"
    bad.parent.mkdir()
    bad.write_bytes(b"no image")
    shutil.copy(image, bad.with_name("good.jpg"))
    code, output, errors = run("predict", out, "x" * 300)
    assert (code, len(errors.splitlines())) == (1, 1) and "too long" in errors
    code, output, errors = run("predict", out, bad.parent)  # a folder; what cannot be read keeps nothing else back
    assert (code, "good.jpg" in output, "bad.jpg cannot be read" in errors) == (1, True, True)
    code, output, _ = run("predict", out, bad.parent, "--json")
    assert ["error" in row for row in json.loads(output)] == [True, False]
    code, output, _ = run("inspect", out)
    assert code == 0
    assert "layer4.1.conv2" in output
    code, output, _ = run("inspect", out, "--json")
    assert json.loads(output)["layers"]["layer1.0.conv1"]["size"] == 8


def test_photos_without_labels_on_the_command_line(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    taught_on = ("--unlabeled", photos)
    code, output, _ = run("adapt", bank_folder, photos, "--out", tmp_path / "m", *FAST, *taught_on, "--json")
    assert code == 0
    report = json.loads(output)
    assert report["unlabeled_images"] == len(list(photos.rglob("*.jpg")))
    assert "the whole base, untrained" in report["baselines"]
    code, _, errors = run("adapt", bank_folder, photos, "--out", tmp_path / "n", "--unlabeled", tmp_path / "nowhere")
    assert (code, "there is no such file or folder" in errors) == (1, True)


def test_json_is_all_there_is_on_standard_output(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    code, output, _ = run("adapt", bank_folder, photos, "--out", tmp_path / "m", "--json", *FAST, "--dtype", "float16")
    assert code == 0
    assert 0 <= json.loads(output)["accuracy"] <= 1
    code, output, _ = run("bank", "show", bank_folder, "--json")
    assert len(json.loads(output)["entries"]) == 4
    code, output, _ = run("bank", "validate", bank_folder, "--json")
    assert json.loads(output) == {"entries": 4, "problems": [], "left_out": []}


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
    code, output, _ = run(*arguments, "--steps", 2, "--ratio", 0.5, "--exclude", "violin")
    assert code == 0
    assert "3 of 3" in output
    code, output, _ = run(*arguments, "--steps", 2, "--ratio", 0.5, "--exclude", "violin", "--json")
    assert json.loads(output) == {"bank": str(root), "entries": 3, "made": []}
    assert not any("violin" in e.labels for e in Bank.open(root))
    code, output, _ = run("bank", "show", root)
    assert code == 0
    assert "random" in output
    code, output, _ = run("bank", "validate", root)
    assert (code, "0 problems" in output) == (0, True)
    taught = ("bank", "trunk", root, photos, "--steps", 2, "--ratios", "0.5,0.9", "--batch-size", 8)
    code, output, _ = run(*taught, "--exclude", "violin")
    assert code == 0
    assert "a trunk of 2 sizes" in output
    trunk = Bank.open(root).trunk
    assert trunk is not None
    grown = ("--method", "grow", "--tasks", 1, "--classes", 2, "--steps", 2, "--ratio", 0.6, "--batch-size", 8)
    code, output, _ = run("bank", "build", root, photos, *grown, "--json")
    (grown_id,) = json.loads(output)["made"]
    assert run("bank", "remove", root, grown_id)[0] == 0
    code, _, problem = run("bank", "build", tmp_path / "nosuch", photos, *grown)
    assert (code, "there is no folder" in problem) == (1, True)
    n_photos = sum(path.is_file() for path in photos.glob("*/*") if path.parent.name != "violin")
    assert trunk.facts["options"]["steps"] == 2
    assert 0 < trunk.facts["images"] <= n_photos
    code, _, problem = run(*taught, "--exclude", "guitar")
    assert code == 1
    assert "the data has no such class" in problem
    entry = next(iter(Bank.open(root)))
    (entry.folder / "model.safetensors").unlink()
    code, output, _ = run("bank", "validate", root)
    assert code == 1
    assert entry.id in output
    code, output, _ = run("bank", "validate", root, "--repair")
    assert "2 entries" in output
    assert "left out" in output


def test_the_demo(run, bank_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few steps; `scripts/check_fresh.sh` runs all of them."""
    adapt = MetaPruner.adapt
    monkeypatch.setattr(MetaPruner, "adapt", lambda *args, **options: adapt(*args, steps=4, batch_size=16, **options))
    code, output, _ = run("demo", "--bank", bank_folder, "--data", photos, "--out", tmp_path / "demo")
    assert code == 0
    assert "Entries of the bank know" in output  # all six classes are in it
    assert "without a bank" in output
    assert "| without a bank |" in (tmp_path / "demo" / "report.md").read_text()
    code, output, _ = run("demo", "--bank", bank_folder, "--data", photos, "--out", tmp_path / "demo", "--json")
    assert {"accuracy", "accuracy_without_bank", "seconds"} <= set(json.loads(output))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bank", "show", "nosuch"], "there is no folder nosuch"),
        (["adapt", "nosuch", "nosuch", "--out", "x"], "there is no folder nosuch"),
        (["predict", "nosuch", "a.png"], "there is no folder nosuch"),
        (["inspect", "nosuch"], "there is no folder nosuch"),
        (["inspect", str(REPO / "space" / "demo_bank")], "is a bank, not a model"),
        (["bank", "build", "b", "d", "--base", "nosuch"], "there is no folder nosuch"),
        (["demo", "--bank", "nosuch"], "there is no folder nosuch"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(
    run, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output, errors = run(*arguments)
    assert code == 1
    assert output == ""
    assert message in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []  # nothing half written


def test_former_names_of_options_work_with_a_warning(
    run, bank_folder: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["adapt", bank_folder, photos, "--steps", "1", "--batch-size", "8", "--json", "--neighbours", "2"]
    code, output, _ = run(*words, "--out", tmp_path / "m")
    assert (code, json.loads(output)["options"]["neighbors"]) == (0, 2)
    assert "--neighbours is called --neighbors now" in caplog.text
    code, _, errors = run(*words, "--neighbors", "2", "--out", tmp_path / "n")
    assert (code, "are the same option" in errors) == (1, True)
    assert "neighbours" not in run("adapt", "--help")[1]


@pytest.mark.slow
def test_options_of_several_values_are_separated_by_commas(
    run, bank_folder: Path, photos: Path, tmp_path: Path
) -> None:
    base = ["adapt", bank_folder, photos, "--out", tmp_path / "m", "--steps", "3", "--neighbors", "1", "--json"]
    code, output, errors = run(*base, "--eval-steps", "0,2", "--compare", "--synsets", "n02121620,, dog.n.01,,,")
    assert (code, errors) == (0, "")
    report = json.loads(output)
    assert list(report["accuracy_at_step"]) == ["0", "2", "3"] == list(report["baselines"]["without a bank"])
    code, _, errors = run(*base, "--eval-steps", "0,two")
    assert (code, "such as 1,2" in errors) == (1, True)


def test_json_holds_whatever_others_wrote(run, own_bank: Bank) -> None:
    from hf_metaprune.cli.output import print_json

    print_json({"a": float("nan"), "b": "\ud800", "c": "ü"})
    _, output, _ = run("bank", "show", own_bank.root, "--json")
    value, end = json.JSONDecoder().raw_decode(output)
    assert value == {"a": None, "b": "\ud800", "c": "ü"}
    assert json.loads(output[end:])["name"] == own_bank.name


def test_what_is_piped_is_not_cut(run, bank_folder: Path) -> None:
    _, output, _ = run("bank", "show", bank_folder)
    assert all(entry.id in output for entry in Bank.open(bank_folder))
    assert "…" not in output


def test_wrong_usage_is_exit_code_2(run) -> None:
    assert run("adapt")[0] == 2
    assert run("adapt", "a", "b", "--out", "c", "--steps", "many")[0] == 2
    assert run("nosuch")[0] == 2


def test_debug_shows_the_traceback(run, tmp_path: Path) -> None:
    from hf_metaprune.errors import FormatError

    for arguments in (("--debug", "bank", "show", tmp_path), ("bank", "show", tmp_path, "--debug")):
        with pytest.raises(FormatError):
            run(*arguments)


def test_version_and_help(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    from hf_metaprune import __version__

    assert __version__ in run("--version")[1]
    output = run("adapt", "--help")[1]
    for name, f in {**option_fields(AdaptOptions), **option_fields(TrainingOptions)}.items():
        assert f"--{name.replace('_', '-')}" in output
        assert f.metadata["help"].split()[0] in output


def test_the_help_of_a_method_that_does_not_exist_is_an_error(run) -> None:
    code, output, errors = run("bank", "build", "--method", "nope", "--help")
    assert (code, output) == (1, "")
    assert "no pruning method 'nope'" in errors


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


def test_a_write_that_the_system_refuses_leaves_nothing_behind(
    bank_folder: Path, task_data: TaskData, tmp_path: Path
) -> None:
    """A real refusal in the middle of the weights: files may not grow beyond 8 kB."""
    import resource

    result = MetaPruner.from_hub(bank_folder).adapt(task_data, steps=1, batch_size=16, eval_steps=(), neighbors=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(StorageError, match="larger than this system allows"):
            result.save_pretrained(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_too_little_space_is_said_before_the_work(
    run, bank_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1))
    monkeypatch.setattr("hf_metaprune.pruner.fine_tune", None)  # must not get so far
    code, _, errors = run("adapt", bank_folder, photos, "--out", tmp_path / "out", *FAST)
    assert (code, "the disk is full" in errors) == (1, True)


@pytest.mark.slow
def test_only_a_model_of_ours_is_replaced(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    pictures = sorted(photos.rglob("*.jpg"))
    code, _, errors = run("adapt", bank_folder, photos, "--out", photos, "--overwrite", *FAST)
    assert (code, "not only the files of a model" in errors) == (1, True)
    assert sorted(photos.rglob("*.jpg")) == pictures
    out = tmp_path / "model"
    assert run("adapt", bank_folder, photos, "--out", out, *FAST)[0] == 0
    assert run("adapt", bank_folder, photos, "--out", out, "--overwrite", *FAST)[0] == 0
    (out / "thesis.txt").write_text("mine")
    assert run("adapt", bank_folder, photos, "--out", out, "--overwrite", *FAST)[0] == 1
    assert run("demo", "--bank", bank_folder, "--data", photos, "--out", out)[0] == 1
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_storage_type_is_checked_before_the_work(run, bank_folder: Path, photos: Path, tmp_path: Path) -> None:
    code, _, errors = run("adapt", bank_folder, photos, "--out", tmp_path / "out", "--dtype", "float8", "--steps", "0")
    assert (code, "float8" in errors) == (1, True)
    bank = tmp_path / "bank"
    code, _, errors = run("bank", "build", bank, photos, "--base", bank_folder / "base", "--dtype", "float8")
    assert (code, "float8" in errors, bank.exists()) == (1, True, False)
    code, _, errors = run("bank", "build", bank, photos, "--base", bank_folder / "base", "--method", "none")
    assert (code, "none" in errors, bank.exists()) == (1, True, False)
    code, _, errors = run("bank", "build", bank, photos, "--base", bank_folder / "base", "--exclude", "catt")
    assert (code, "catt" in errors, bank.exists()) == (1, True, False)


def test_another_base_is_refused_before_images_are_read(run, bank_folder: Path, tmp_path: Path) -> None:
    other = make_vit_base(tmp_path / "other")
    (tmp_path / "no_photos_yet").mkdir()
    code, _, errors = run("bank", "build", bank_folder, tmp_path / "no_photos_yet", "--base", other)
    assert (code, "is a bank of another base" in " ".join(errors.split())) == (1, True)


def test_a_read_only_folder_is_said(run_python, tmp_path: Path) -> None:
    """As nobody, where the tests are run by root, who may write everywhere."""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from hf_metaprune.files.storage import check_writable\n"
        "from hf_metaprune.errors import StorageError\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try:\n"
        "    check_writable(Path(sys.argv[1]))\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    assert "permission denied" in run_python(code, str(folder / "out"))


def test_ctrl_c_leaves_nothing_half_written(
    run, bank_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_metaprune.reporting.model_files.save_model", interrupted)
    code, _, errors = run("adapt", bank_folder, photos, "--out", tmp_path / "out", *FAST)
    assert code == 130
    assert "no file is half written" in errors
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_text_of_others_cannot_steer_the_terminal(run, own_bank: Bank) -> None:
    own_bank.meta["name"] = "\x1b]0;owned\x07[red]x"
    (own_bank.root / "bank.json").write_text(json.dumps(own_bank.meta))
    code, output, _ = run("bank", "show", own_bank.root)
    assert code == 0
    assert "\x1b" not in output
    assert "\x07" not in output
