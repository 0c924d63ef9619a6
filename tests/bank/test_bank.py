"""Banks on disk: opening, adding, damage, locks, and builds that are killed."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_metaprune.bank import bank as bank_module
from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.entry import Entry, check_id
from hf_metaprune.bank.factory import build_bank, entry_id, subset, task_seed
from hf_metaprune.bank.validation import repair_index, validate_bank
from hf_metaprune.config import MethodOptions
from hf_metaprune.data import ImageSet
from hf_metaprune.errors import BankError, BaseMismatchError, FormatError, MetaPruneError, StorageError
from hf_metaprune.models.base import BaseModel
from hf_metaprune.task import Task, TaskData
from tests.conftest import LABELS, striped_images, tiny_preprocessing


def first(bank: Bank) -> Entry:
    return next(iter(bank))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_index(bank: Bank, **changes: object) -> None:
    """Change fields of the first row of the index."""
    table = pq.read_table(bank.root / "index.parquet")
    rows = table.to_pylist()
    rows[0] |= changes
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), bank.root / "index.parquet")
    bank.reload()


def test_reading(bank: Bank) -> None:
    assert len(bank) == 4
    assert [e.id for e in bank] == sorted(bank.entries)
    entry = bank[first(bank).id]
    assert entry.id in bank
    assert "nosuch" not in bank
    model = entry.load_model()
    assert model.mask() == entry.mask
    assert [model.config.id2label[i] for i in range(3)] == list(entry.labels)
    assert 0 <= entry.metrics["accuracy"] <= 1
    assert entry.metrics["test_images"] == 24
    assert entry.method == "ifp"
    assert bank.default_ratio == 0.7
    assert "4 entries" in repr(bank)
    with pytest.raises(BankError, match="no entry 'nosuch'"):
        bank["nosuch"]
    assert validate_bank(bank) == []


def test_the_index_alone_lists_a_bank(own_bank: Bank) -> None:
    import shutil

    shutil.rmtree(own_bank.root / "tasks")
    shutil.rmtree(own_bank.root / "base")
    bank = Bank.open(own_bank.root)
    assert len(bank) == 4
    assert first(bank).mask.n_kept > 0
    with pytest.raises(FormatError, match="there is no folder"):
        first(bank).load_model()


def test_adding_and_removing(own_bank: Bank) -> None:
    model = first(own_bank).load_model()
    added = own_bank.add(model, "new-one", metrics={"accuracy": 0.5})
    assert Bank.open(own_bank.root)["new-one"].metrics == {"accuracy": 0.5}
    assert added.folder.is_dir()
    with pytest.raises(BankError, match="'new-one' already"):
        own_bank.add(model, "new-one")
    own_bank.remove("new-one")
    assert "new-one" not in Bank.open(own_bank.root)
    assert not added.folder.exists()


@pytest.mark.parametrize("metrics", [{"accuracy": float("nan")}, {"who": object()}, {"text": "x" * 100_000}])
def test_metrics_that_could_not_be_read_again_are_refused(own_bank: Bank, metrics: dict) -> None:
    model = first(own_bank).load_model()
    with pytest.raises(FormatError, match="metrics"):
        own_bank.add(model, "another", metrics=metrics)
    assert not (own_bank.root / "tasks" / "another").exists()
    assert len(Bank.open(own_bank.root)) == 4


def test_large_banks_are_sharded(own_bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_module, "SHARD_ABOVE", 4)
    entry = own_bank.add(first(own_bank).load_model(), "sharded")
    assert len(Path(entry.path).parts) == 3
    assert Bank.open(own_bank.root)["sharded"].load_model().mask() == entry.mask
    assert own_bank.folders()["sharded"] == entry.path
    assert validate_bank(own_bank) == []


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "A", "a/b", "a\nb", "x" * 97, "a..b", 3])
def test_ids_that_are_no_folder_names_are_refused(name: object) -> None:
    with pytest.raises(FormatError, match="entry id"):
        check_id(name)  # type: ignore[arg-type]


def test_another_base_is_refused(own_bank: Bank, base_folder: Path, tmp_path: Path) -> None:
    import shutil

    other = Path(shutil.copytree(base_folder, tmp_path / "other"))
    state = {n: t.clone() for n, t in load_file(other / "model.safetensors").items()}
    save_file(state | {"fc.bias": state["fc.bias"] + 1}, other / "model.safetensors")
    with pytest.raises(BaseMismatchError, match="another base"):
        Bank.create(own_bank.root, BaseModel.load(other))
    model = first(own_bank).load_model()
    model.config.base_model = model.config.base_model | {"sha256": "0" * 64}
    with pytest.raises(BaseMismatchError, match="not to the bank's"):
        own_bank.add(model, "stranger")
    shutil.copy(other / "model.safetensors", own_bank.root / "base" / "model.safetensors")
    with pytest.raises(BaseMismatchError, match="are not those of bank.json"):
        Bank.open(own_bank.root).base  # noqa: B018


def test_what_is_no_bank_is_refused(tmp_path: Path, own_bank: Bank, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FormatError, match="is not a bank"):
        Bank.open(tmp_path)
    meta = own_bank.root / "bank.json"
    whole = meta.read_text()
    edit_json(meta, format_version=2)
    with pytest.raises(FormatError, match="version 2.*upgrade"):
        Bank.open(own_bank.root)
    wrong: list[dict] = [{"format_version": "1"}, {"base_model": {}}, {"layers": {"a": -1}}, {"layers": [1]}]
    wrong += [{"defaults": d} for d in ([], None, "x", {"ratio": "x"}, {"ratio": 1.5}, {"ratio": None})]
    for change in wrong:
        meta.write_text(whole)
        edit_json(meta, **change)
        with pytest.raises(FormatError, match="bank.json"):
            Bank.open(own_bank.root)
    meta.write_text(whole[:40])
    with pytest.raises(FormatError, match="cannot be read"):
        Bank.open(own_bank.root)
    meta.write_text(whole)
    edit_json(meta, from_the_future=1)
    assert len(Bank.open(own_bank.root)) == 4
    assert "from_the_future" in caplog.text


def test_damaged_indexes_are_refused_and_rebuilt(own_bank: Bank) -> None:
    index = own_bank.root / "index.parquet"
    rows = [e.row() for e in own_bank]
    index.write_bytes(index.read_bytes()[:200])
    with pytest.raises(FormatError, match="index.parquet cannot be read.*--repair"):
        len(Bank.open(own_bank.root))
    repaired, left_out = repair_index(own_bank.root)
    assert ([e.row() for e in repaired], left_out) == (rows, [])
    table = pq.read_table(index)
    pq.write_table(table.drop_columns(["sha256"]), index)
    with pytest.raises(FormatError, match="sha256"):
        len(Bank.open(own_bank.root))
    pq.write_table(pa.concat_tables([table, table]), index)
    with pytest.raises(FormatError, match="twice"):
        len(Bank.open(own_bank.root))
    numbers = pa.array(range(len(table)), pa.int64())  # bytes(n) would ask for n bytes
    pq.write_table(table.set_column(table.schema.get_field_index("masks"), "masks", numbers), index)
    with pytest.raises(FormatError, match="masks is of type int64"):
        len(Bank.open(own_bank.root))


def test_an_index_that_is_replaced_while_it_is_read(own_bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another process, which holds the lock; readers take none."""
    read = pq.ParquetFile.read

    def slow_read(file: pq.ParquetFile, **options: object) -> pa.Table:
        Bank.open(own_bank.root).write_index({})
        return read(file, **options)

    monkeypatch.setattr(pq.ParquetFile, "read", slow_read)
    assert len(Bank.open(own_bank.root)) == 4
    monkeypatch.undo()
    assert len(Bank.open(own_bank.root)) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../evil"},
        {"path": "../../etc"},
        {"path": "/etc"},
        {"path": ""},
        {"path": "tasks/a\0b"},
        {"labels": ["one"]},
        {"labels": ["a", "a\x00b"]},
        {"metrics": "[1"},
        {"metrics": "[" * 100_000},
        {"metrics": "[1]"},
        {"metrics": '{"accuracy": NaN}'},
        {"metrics": '{"accuracy": "\\ud800"}'},
        {"ratio": float("nan")},
        {"ratio": 1.5},
        {"synsets": ["../evil", None]},
        {"synsets": [None]},
    ],
)
def test_rows_that_lead_astray_are_refused(own_bank: Bank, changes: dict) -> None:
    edit_index(own_bank, **changes)
    with pytest.raises(MetaPruneError):
        len(own_bank)


def damage_truncate(entry: Entry) -> None:
    path = entry.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def damage_flip(entry: Entry) -> None:
    path = entry.folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 255
    path.write_bytes(bytes(data))


def damage_nan(entry: Entry) -> None:
    from hf_metaprune.models.base import sha256_file

    path = entry.folder / "model.safetensors"
    state = {n: t.clone() for n, t in load_file(path).items()}  # not mapped: the file is written over
    name = "network.bn1.weight"
    save_file(state | {name: torch.full_like(state[name], float("nan"))}, path)
    edit_index(entry.bank, sha256=sha256_file(path), size=path.stat().st_size)


def damage_masks(entry: Entry) -> None:
    config = json.loads((entry.folder / "config.json").read_text())
    layer = next(name for name, m in config["masks"].items() if m["kept"] < m["size"])
    other = entry.mask.to_bools()
    import base64

    import numpy as np

    config["masks"][layer]["bits"] = base64.b64encode(np.packbits(other[layer][::-1])).decode()
    (entry.folder / "config.json").write_text(json.dumps(config))


def damage_labels(entry: Entry) -> None:
    edit_json(entry.folder / "config.json", id2label={"0": "x", "1": "y", "2": "z"}, label2id={"x": 0, "y": 1, "z": 2})


def damage_missing(entry: Entry) -> None:
    (entry.folder / "config.json").unlink()


def damage_row(entry: Entry) -> None:
    edit_index(entry.bank, method="magic", metrics='{"accuracy": 1.0}')


def damage_link(entry: Entry) -> None:
    path = entry.folder / "model.safetensors"
    path.rename(entry.bank.root / "elsewhere.safetensors")
    path.symlink_to(entry.bank.root / "elsewhere.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, "bytes, the index says"),
        (damage_flip, "was altered"),
        (damage_nan, "not finite"),
        (damage_masks, "masks"),
        (damage_labels, "labels"),
        (damage_missing, "is missing"),
        (damage_link, "symbolic link"),
        (damage_row, "differ in: metrics"),
    ],
)
def test_validation_names_what_is_wrong_and_where(own_bank: Bank, damage, message: str) -> None:
    entry = first(own_bank)
    damage(entry)
    problems = validate_bank(Bank.open(own_bank.root))
    assert {p.entry_id for p in problems} == {entry.id}
    assert any(message in p.what for p in problems), problems
    repaired, left_out = repair_index(own_bank.root)
    if damage is damage_row:  # made anew from its files
        assert (len(repaired), left_out) == (4, [])
        return
    assert len(repaired) == 3
    assert {p.entry_id for p in left_out} == {entry.id}
    assert validate_bank(Bank.open(own_bank.root)) == []
    again, nothing = repair_index(own_bank.root)  # must not take what was refused before
    assert (len(again), nothing, again.recover()) == (3, [], [])
    kept = list(own_bank.root.glob(".rejected/*"))
    assert [folder.name for folder in kept] == ([] if damage is damage_missing else [f"{entry.id}.1"])


def test_validation_sees_a_folder_the_index_lacks(own_bank: Bank) -> None:
    entry = first(own_bank)
    own_bank._update_index({entry.id: None})
    problems = validate_bank(Bank.open(own_bank.root))
    assert [p.entry_id for p in problems] == [entry.id]
    assert Bank.open(own_bank.root).recover() == [entry.id]
    assert validate_bank(Bank.open(own_bank.root)) == []


def test_subsets_are_banks(own_bank: Bank, tmp_path: Path) -> None:
    ids = list(own_bank.entries)[:2]
    small = subset(own_bank, tmp_path / "small", ids, name="small")
    assert not (small.root / ".locks").exists()  # what is shipped holds nothing of this machine
    assert list(small.entries) == ids
    assert small.name == "small"
    assert validate_bank(small) == []
    with pytest.raises(StorageError, match="exists already"):
        subset(own_bank, tmp_path / "small", ids)


def test_a_lock_that_is_held_is_waited_for_and_then_named(own_bank: Bank) -> None:
    with own_bank.lock(), pytest.raises(BankError, match="another process holds its lock"), own_bank.lock(timeout=0):
        pass


def test_builds_do_not_repeat_finished_tasks(own_bank: Bank, task_data: TaskData) -> None:
    options = MethodOptions(ratio=0.7, steps=2, prune_every=1, batch_size=8)
    tasks = [(0, 1), (1, 2)]
    built = list(build_bank(own_bank, task_data, tasks, method="random", options=options))
    assert len(built) == 2
    again = list(build_bank(own_bank, task_data, [*tasks, (2, 3)], method="random", options=options))
    assert [e.labels for e in again] == [("truck", "daisy")]
    assert len(own_bank) == 7
    own_bank._update_index({built[0].id: None})  # a builder that died before it wrote the index
    assert list(build_bank(own_bank, task_data, tasks, method="random", options=options)) == []
    assert built[0].id in Bank.open(own_bank.root).entries


def test_ids_tell_the_labels_and_differ_by_what_shapes_an_entry() -> None:
    options = MethodOptions()
    task = Task(("Sweet Pepper", "Dog/Cat"))
    name = entry_id(task, "ifp", options, 0)
    assert name.startswith("sweet-pepper-dog-cat-")
    assert len({name, entry_id(task, "taylor", options, 0), entry_id(task, "ifp", options, 1)}) == 3
    assert check_id(entry_id(Task(("日本", "中国")), "ifp", options, 0))
    assert task_seed(0, "a") == task_seed(0, "a") != task_seed(1, "a")


def build_in_child(root: str, log: str) -> None:
    """What a killed process was doing: build, and note each finished entry in a file."""
    torch.set_num_threads(1)
    train = ImageSet(*striped_images(4, len(LABELS), 0), tiny_preprocessing())
    data = TaskData(Task(LABELS), train, train, "train", "stripes")
    tasks = [(a, b) for a in range(6) for b in range(a + 1, 6)]
    options = MethodOptions(ratio=0.7, steps=1, prune_every=1, batch_size=8)
    with open(log, "a") as file:
        for entry in build_bank(Bank.open(root), data, tasks, method="random", options=options):
            print(entry.id, file=file, flush=True)
        print("done", file=file, flush=True)


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Fresh processes that need not import everything again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.bank.test_bank", "timm", "hf_metaprune.models.modeling"])
    return context


def lines(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


@pytest.fixture
def empty_bank(own_bank: Bank) -> Bank:
    for name in list(own_bank.entries):
        own_bank.remove(name)
    return own_bank


def test_two_processes_build_into_one_folder(
    empty_bank: Bank, tmp_path: Path, processes: multiprocessing.context.ForkServerContext
) -> None:
    logs = [tmp_path / "one", tmp_path / "two"]
    both = [processes.Process(target=build_in_child, args=(str(empty_bank.root), str(log))) for log in logs]
    for process in both:
        process.start()
    for process in both:
        process.join(300)
    assert [p.exitcode for p in both] == [0, 0]
    built = [name for log in logs for name in lines(log) if name != "done"]
    bank = Bank.open(empty_bank.root)
    assert sorted(built) == list(bank.entries)
    assert len(built) == 15
    assert validate_bank(bank) == []


def test_nothing_finished_is_lost_when_a_build_is_killed(
    empty_bank: Bank, tmp_path: Path, processes: multiprocessing.context.ForkServerContext
) -> None:
    """kill -9 in the middle of a build, 20 times, at moments spread over the work on an entry."""
    log, root = tmp_path / "log", empty_bank.root
    finished: set[str] = set()
    for kill in range(20):
        seen = len(lines(log))
        process = processes.Process(target=build_in_child, args=(str(root), str(log)))
        process.start()
        while len(lines(log)) == seen and process.is_alive():  # until an entry is done and the next is under way
            process.join(0.001)
        process.join(0.004 * kill)
        process.kill()
        process.join()
        finished |= set(lines(log)) - {"done"}
        bank = Bank.open(root)
        assert finished <= set(bank.entries)
        assert [p for p in validate_bank(bank) if "not in the index" not in p.what] == []
        if len(bank) > 10:
            for name in list(bank.entries)[:8]:
                bank.remove(name)
            log.write_text("")
            finished = set(bank.entries)
    log.write_text("")
    process = processes.Process(target=build_in_child, args=(str(root), str(log)))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    assert not finished & set(lines(log))  # what was finished is not made again
    bank = Bank.open(root)
    assert len(bank) == 15
    assert validate_bank(bank) == []
    assert not list(bank.root.rglob(".tmp-*"))
