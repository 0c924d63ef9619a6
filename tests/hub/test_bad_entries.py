"""Entries on the Hub that lie of themselves, or take what is not theirs, from their files to their aim."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file, save_file

from hf_metaprune import AdaptResult, Bank, MetaPruner
from hf_metaprune.bank import folders
from hf_metaprune.bank.publish import add_entries, publish_bank, remove_entries
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import BankError, FormatError
from hf_metaprune.files.reading import sha256_file
from hf_metaprune.reporting.card import split_card
from tests.bank.edits import edit_index, first
from tests.hub import LoopbackHub
from tests.hub.edits import TINY, hub_cache, put_index
from tests.tiny import make_base


def test_an_entry_that_shares_anothers_place_takes_nothing_along(
    hub: LoopbackHub, own_bank: Bank, tmp_path: Path
) -> None:
    publish_bank(own_bank, "me/bank")
    victim = first(own_bank)
    put_index(hub, tmp_path, lambda rows: rows.append(rows[0] | {"id": "zzz"}))
    with pytest.raises(FormatError, match=r"another entry lies in .* too"):
        remove_entries("me/bank", ["zzz"])
    assert f"{victim.path}/model.safetensors" in hub.read_files("me/bank")
    there = Bank.from_hub("me/bank")
    assert ("zzz" not in there, victim.id in there) == (True, True)
    assert "has the same folder as" in next(iter(there.skip_reasons.values()))


def test_an_entry_named_like_a_shard_goes_into_one(own_bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    model = first(own_bank).load_model()
    assert own_bank.add(model, "69").path.count("/") == 2
    monkeypatch.setattr(folders, "MAX_FLAT_ENTRIES", 0)
    own_bank.add(model, "victim")
    edit_index(own_bank, path="tasks/" + own_bank["victim"].path.split("/")[1])  # as a foolish program might
    with pytest.raises(FormatError, match=r"another entry lies"):
        own_bank.remove(first(own_bank).id)
    assert own_bank["victim"].folder.exists()


def test_no_entry_is_put_where_another_says_that_it_lies(hub: LoopbackHub, own_bank: Bank, tmp_path: Path) -> None:
    publish_bank(own_bank, "me/bank")
    put_index(hub, tmp_path, lambda rows: rows[0].update(path="tasks/newone"))
    with pytest.raises(FormatError, match="another entry lies"):
        add_entries("me/bank", {"newone": own_bank[list(own_bank.entries)[1]].folder})


def another_network(folder: Path, scratch: Path) -> None:
    """Make a model one of another network that names the same base: its stem is wider."""
    from hf_metaprune.models.base_model import BaseModel
    from hf_metaprune.models.configuration import MetaPrunedConfig
    from hf_metaprune.models.saving import save_model

    config = json.loads((folder / "config.json").read_text())
    base = BaseModel.load(make_base(scratch / "base"))
    base.model_args = base.model_args | {"stem_width": 12}
    base.network = base.family.build(base.architecture, base.model_args, 7)
    model_config = MetaPrunedConfig.from_dict(config)
    model_config.base_model = model_config.base_model | {"model_args": base.model_args}
    save_model(base.slice(model_config), folder, "float16")


@pytest.mark.slow
def test_a_model_of_another_network_does_not_stop_the_others(
    hub: LoopbackHub, bank: Bank, own_bank: Bank, result: AdaptResult, task: TaskData, tmp_path: Path
) -> None:
    folder = result.save_pretrained(tmp_path / "good")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.put_files("me/good", files)
    another_network(folder, tmp_path)
    data, text = split_card((folder / "README.md").read_text())
    weights = folder / "model.safetensors"
    data["metaprune"] |= {"sha256": sha256_file(weights), "size": weights.stat().st_size}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(data)}---\n{text}")
    hub.put_files("eve/bad", {path.name: path.read_bytes() for path in folder.iterdir()})
    pruner = MetaPruner.from_search(bank)
    assert sorted(pruner.bank.entries) == ["eve--bad", "me--good"]
    report = pruner.adapt(task, neighbors=1, **TINY).report
    assert [n["id"] for n in report.neighbors] == ["me--good"]
    assert any("eve--bad" in note and "model_args is not that of the base" in note for note in report.notes)
    publish_bank(own_bank, "me/bank")
    with pytest.raises(FormatError, match="model_args is not that"):
        add_entries("me/bank", {"bad": folder})


def spoil(bank: Bank, entry_id: str, **changes: Any) -> None:
    """Change tensors of an entry, and the index with them."""
    path = bank[entry_id].folder / "model.safetensors"
    state = {n: t.float().clone() if t.is_floating_point() else t.clone() for n, t in load_file(path).items()}
    for name, change in changes.items():
        for key in state:
            if key.endswith(name):
                state[key] = change(state[key])
    path.unlink()
    save_file(state, path, {"format": "pt"})
    rows = pq.read_table(bank.root / "index.parquet")
    new = {"sha256": sha256_file(path), "size": path.stat().st_size}
    new_rows = [row | (new if row["id"] == entry_id else {}) for row in rows.to_pylist()]
    pq.write_table(rows.from_pylist(new_rows, schema=rows.schema), bank.root / "index.parquet")


@pytest.mark.slow
def test_weights_that_are_far_out_do_not_vote(hub: LoopbackHub, own_bank: Bank, task: TaskData) -> None:
    nearest = MetaPruner(own_bank).adapt(task, neighbors=1, **TINY).report.neighbors[0]["id"]
    path = own_bank[nearest].folder / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    state["network.layer1.0.conv1.weight"] *= 1000  # which the norm undoes: nothing else tells
    state["network.layer1.0.bn1.running_mean"] *= 1000
    state["network.layer1.0.bn1.running_var"] *= 1000**2
    path.unlink()
    save_file(state, path, {"format": "pt"})
    rows = pq.read_table(own_bank.root / "index.parquet")
    new_rows = [
        row | ({"sha256": sha256_file(path), "size": path.stat().st_size} if row["id"] == nearest else {})
        for row in rows.to_pylist()
    ]
    pq.write_table(rows.from_pylist(new_rows, schema=rows.schema), own_bank.root / "index.parquet")
    report = MetaPruner(Bank.open(own_bank.root, strict=False)).adapt(task, neighbors=1, **TINY).report
    assert report.neighbors[0]["id"] != nearest
    assert any(nearest in note and "is far out" in note for note in report.notes)
    with pytest.raises(FormatError, match="is far out"):
        MetaPruner(Bank.open(own_bank.root)).adapt(task, neighbors=1, **TINY)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("running_var", lambda t: -t, "variances below 0"),
        ("fc.weight", lambda t: t * 0 + 3e38, "outputs are not finite"),
    ],
)
def test_weights_that_give_nonsense_do_not_vote(own_bank: Bank, name: str, change: Any, message: str) -> None:
    spoil(own_bank, first(own_bank).id, **{name: change})
    entry = first(Bank.open(own_bank.root))
    with pytest.raises(FormatError, match=message):
        entry.verify()


@pytest.mark.slow
def test_no_entry_is_larger_than_the_base(hub: LoopbackHub, own_bank: Bank, task: TaskData, tmp_path: Path) -> None:
    publish_bank(own_bank, "me/bank")
    victim = first(own_bank)
    put_index(hub, tmp_path, lambda rows: rows[0].update(size=60_000_000))
    shutil.rmtree(hub_cache(), ignore_errors=True)
    hub.reset_log()
    report = MetaPruner.from_hub("me/bank").adapt(task, neighbors=1, **TINY).report
    assert any(victim.id in note and "more than any slice of the base" in note for note in report.notes)
    assert hub.count("GET", path=f"{victim.path}/model.safetensors") == 0


def test_a_row_that_is_huge_does_not_lock_the_bank(hub: LoopbackHub, own_bank: Bank, tmp_path: Path) -> None:
    publish_bank(own_bank, "me/bank")
    put_index(hub, tmp_path, lambda rows: rows[0].update(labels=["x" * 3_000_000, "b", "c"]))
    folder = own_bank[list(own_bank.entries)[1]].folder
    add_entries("me/bank", {"new-one": folder})
    assert len(hub.read_files("me/bank")["README.md"]) < 100_000
    hub.put_files("me/bank", {"README.md": b"x" * 3_000_000})
    assert remove_entries("me/bank", ["new-one"]).removed == ["new-one"]
    assert len(hub.read_files("me/bank")["README.md"]) == 3_000_000  # not ours to cut


def test_a_row_that_lies_of_its_files_does_not_vote(
    hub: LoopbackHub, own_bank: Bank, task: TaskData, tmp_path: Path
) -> None:
    publish_bank(own_bank, "me/bank")
    victim = first(own_bank)
    lies = {"labels": list(task.task.labels), "method": "zzz", "ratio": 0.01, "metrics": '{"accuracy": 1.0}'}
    honest = victim.row()
    for key, lie in lies.items():
        put_index(hub, tmp_path, lambda rows, key=key, lie=lie: rows[0].update(honest | {key: lie}))
        assert honest[key] != lie
        there = Bank.from_hub("me/bank")
        with pytest.raises(FormatError, match=f"{key}.* not those of the index"):
            there[victim.id].verify()


@pytest.mark.slow
def test_rows_of_other_repos_are_kept_and_removed(
    hub: LoopbackHub, own_bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    hub.put_folder("me/pets", result.save_pretrained(tmp_path / "pets"))
    commons = Bank.from_search(own_bank)
    row = first(commons).row() | {"id": "zzz"}
    publish_bank(own_bank, "me/bank")
    put_index(hub, tmp_path, lambda rows: rows.append(row))
    there = Bank.from_hub("me/bank")
    there["zzz"].verify()
    assert validate_bank(there) == []
    assert remove_entries("me/bank", ["zzz"]).removed == ["zzz"]
    assert len(Bank.from_hub("me/bank")) == 4
    with pytest.raises(BankError, match="lies in me/pets: what a search found is published there already"):
        commons.push_to_hub("me/commons")
    assert ("models", "me/commons") not in hub.store.repos
    assert validate_bank(commons) == []
