"""Banks on disk: opening, adding, damaged indexes, locks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from hf_metaprune.bank import folders
from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.entry_checks import check_id
from hf_metaprune.bank.factory import copy_subset
from hf_metaprune.bank.index import INDEX_SCHEMA, read_table
from hf_metaprune.bank.repair import repair_index
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.errors import BankError, BaseMismatchError, FormatError, MetaPruneError, StorageError
from hf_metaprune.models.base_model import BaseModel
from tests.bank.edits import edit_index, edit_json, first


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
    entry = own_bank.add(model, "new-one", metrics={"accuracy": 0.5})
    assert Bank.open(own_bank.root)["new-one"].metrics == {"accuracy": 0.5}
    assert entry.folder.is_dir()
    with pytest.raises(BankError, match="'new-one' already"):
        own_bank.add(model, "new-one")
    own_bank.remove("new-one")
    assert "new-one" not in Bank.open(own_bank.root)
    assert not entry.folder.exists()


def test_an_entry_whose_files_are_gone_can_be_removed(own_bank: Bank) -> None:
    entry = first(own_bank)
    shutil.rmtree(entry.folder)
    own_bank.remove(entry.id)
    assert entry.id not in Bank.open(own_bank.root)


@pytest.mark.parametrize("metrics", [{"accuracy": float("nan")}, {"who": object()}, {"text": "x" * 100_000}])
def test_metrics_that_could_not_be_read_again_are_refused(own_bank: Bank, metrics: dict) -> None:
    model = first(own_bank).load_model()
    with pytest.raises(FormatError, match="metrics"):
        own_bank.add(model, "another", metrics=metrics)
    assert not (own_bank.root / "tasks" / "another").exists()
    assert len(Bank.open(own_bank.root)) == 4


def test_large_banks_are_sharded(own_bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_FLAT_ENTRIES", 4)
    entry = own_bank.add(first(own_bank).load_model(), "sharded")
    assert len(Path(entry.path).parts) == 3
    assert Bank.open(own_bank.root)["sharded"].load_model().mask() == entry.mask
    assert folders.entry_folders(own_bank)["sharded"] == entry.path
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
    edit_json(meta, format_version=3)
    with pytest.raises(FormatError, match="version 3.*upgrade"):
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
    rows = [e.row() | {"sketch": None, "class_means": None} for e in own_bank]  # which nothing else holds
    index.write_bytes(index.read_bytes()[:200])
    with pytest.raises(FormatError, match="index.parquet cannot be read.*--repair"):
        len(Bank.open(own_bank.root))
    entries, left_out = repair_index(own_bank.root)
    assert ([e.row() for e in entries], left_out) == (rows, [])
    table = pq.read_table(index)
    pq.write_table(table.drop_columns(["sha256"]), index)
    with pytest.raises(FormatError, match="sha256"):
        len(Bank.open(own_bank.root))
    pq.write_table(pa.concat_tables([table, table]), index)
    with pytest.raises(FormatError, match="twice"):
        len(Bank.open(own_bank.root))
    assert len(Bank.open(own_bank.root, strict=False)) == 4
    numbers = pa.array(range(len(table)), pa.int64())  # bytes(n) would ask for n bytes
    pq.write_table(table.set_column(table.schema.get_field_index("masks"), "masks", numbers), index)
    with pytest.raises(FormatError, match="masks is of type int64, not binary"):
        len(Bank.open(own_bank.root))


def test_other_programs_guess_types(own_bank: Bank) -> None:
    """An index without a schema, as pandas or Polars might write it."""
    index = own_bank.root / "index.parquet"
    rows = pq.read_table(index).to_pylist()
    rows = [row | {"synsets": [None] * len(row["labels"]), "sketch": None} for row in rows]
    expected = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
    large = {
        pa.string(): pa.large_string(),
        pa.binary(): pa.large_binary(),
        pa.list_(pa.string()): pa.large_list(pa.large_string()),
        pa.int64(): pa.int32(),
    }
    wide = pa.schema([field.with_type(large.get(field.type, field.type)) for field in INDEX_SCHEMA])
    for table in (pa.Table.from_pylist(rows), pa.Table.from_pylist(rows, schema=wide)):
        pq.write_table(table, index)
        contents = read_table(index)
        assert contents.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA).equals(expected)
        assert len(Bank.open(own_bank.root)) == 4
    pq.write_table(pa.Table.from_pylist([row | {"labels": "cat"} for row in rows]), index)
    with pytest.raises(FormatError, match="labels is of type string, not list"):
        read_table(index)


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
        {"repo_id": "../evil", "revision": "0" * 40},
        {"repo_id": "org/model", "revision": "main"},
        {"repo_id": "org/model", "revision": None},
    ],
)
def test_rows_that_lead_astray_are_left_out_and_named(own_bank: Bank, changes: dict) -> None:
    edit_index(own_bank, **changes)
    with pytest.raises(MetaPruneError):
        len(own_bank)
    lenient = Bank.open(own_bank.root, strict=False)
    assert len(lenient) == 3
    assert ["row 0"] == list(lenient.skip_reasons) == [p.entry_id for p in validate_bank(lenient)][:1]
    lenient.update_index({})  # who writes does not lose what he cannot read
    assert pq.read_table(own_bank.root / "index.parquet").num_rows == 4


def test_subsets_are_banks(own_bank: Bank, tmp_path: Path) -> None:
    ids = list(own_bank.entries)[:2]
    small = copy_subset(own_bank, tmp_path / "small", ids, name="small")
    assert not (small.root / ".locks").exists()  # what is shipped holds nothing of this machine
    assert list(small.entries) == ids
    assert small.name == "small"
    assert validate_bank(small) == []
    with pytest.raises(StorageError, match="exists already"):
        copy_subset(own_bank, tmp_path / "small", ids)


def test_a_lock_that_is_held_is_waited_for_and_then_named(own_bank: Bank) -> None:
    with own_bank.lock(), pytest.raises(BankError, match="another process holds its lock"), own_bank.lock(timeout=0):
        pass


def test_what_a_bank_is_called_cannot_control_a_terminal(own_bank: Bank) -> None:
    own_bank.meta["base_model"]["architecture"] = "\x1b]0;owned\x07"
    assert "\x1b" not in repr(own_bank)
