"""Validation: damaged entries are named, and repair sets them aside."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.entry import Entry
from hf_metaprune.bank.repair import recover, repair_index
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.errors import FormatError
from hf_metaprune.files.reading import is_present
from tests.bank.edits import edit_index, edit_json, first


def damage_truncate(entry: Entry) -> None:
    path = entry.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def damage_flip(entry: Entry) -> None:
    path = entry.folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 255
    path.write_bytes(bytes(data))


def damage_nan(entry: Entry) -> None:
    from hf_metaprune.files.reading import sha256_file

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
    entries, left_out = repair_index(own_bank.root)
    if damage is damage_row:  # made anew from its files
        assert (len(entries), left_out) == (4, [])
        return
    assert len(entries) == 3
    assert {p.entry_id for p in left_out} == {entry.id}
    assert validate_bank(Bank.open(own_bank.root)) == []
    again, nothing = repair_index(own_bank.root)  # must not take what was refused before
    assert (len(again), nothing, recover(again)) == (3, [], [])
    folders = list(own_bank.root.glob(".rejected/*"))
    assert [folder.name for folder in folders] == ([] if damage is damage_missing else [f"{entry.id}.1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"format_version": 7}, "config.json: this model has format version 7"),
        (
            lambda c: c | {"masks": c["masks"] | {"layer1.0.conv1": {"size": 8, "kept": 2, "bits": "AA=="}}},
            "config.json: ",
        ),
    ],
)
def test_what_a_config_says_is_told_with_its_file(own_bank: Bank, change, message: str) -> None:
    path = first(own_bank).folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    (problem,) = validate_bank(Bank.open(own_bank.root))
    assert message in problem.what
    assert str(path) in problem.what


def test_a_damaged_base_is_told_once(own_bank: Bank) -> None:
    weights = own_bank.base_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    (problem,) = validate_bank(Bank.open(own_bank.root))
    assert (problem.entry_id, str(weights) in problem.what) == ("", True)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../../etc", "leads out of the bank"),
        ("x" * 256, "too long"),
        ("/".join("x" * 600), "too long"),
        ([], "text"),
        ("tasks/a/base", "entries"),
    ],
)
def test_a_bad_path_of_the_base_is_told_with_the_file(own_bank: Bank, path: Any, message: str) -> None:
    meta = json.loads((own_bank.root / "bank.json").read_text())
    edit_json(own_bank.root / "bank.json", base_model=meta["base_model"] | {"path": path})
    with pytest.raises(FormatError, match=f"bank.json: base_model: .*{message}"):
        Bank.open(own_bank.root)


def test_a_bank_file_that_is_gone_is_taken_from_the_index(own_bank: Bank) -> None:
    meta = (own_bank.root / "bank.json").read_bytes()
    (own_bank.root / "bank.json").unlink()
    entries, left_out = repair_index(own_bank.root)
    assert (len(entries), left_out) == (4, [])
    assert (own_bank.root / "bank.json").read_bytes() == meta


def test_validation_sees_a_folder_the_index_lacks(own_bank: Bank) -> None:
    entry = first(own_bank)
    own_bank.update_index({entry.id: None})
    problems = validate_bank(Bank.open(own_bank.root))
    assert [p.entry_id for p in problems] == [entry.id]
    (own_bank.root / ".tmp-x.part").symlink_to(".")
    assert recover(Bank.open(own_bank.root)) == [entry.id]
    assert not is_present(own_bank.root / ".tmp-x.part")
    assert validate_bank(Bank.open(own_bank.root)) == []


def test_folders_that_nest_without_end_are_refused(own_bank: Bank) -> None:
    deep = own_bank.root / "tasks" / Path(*["a"] * 60)
    deep.mkdir(parents=True)
    with pytest.raises(FormatError, match="nest deeper than 50"):
        validate_bank(Bank.open(own_bank.root))


def test_what_repairs_a_bank_opens_and_writes_no_links(own_bank: Bank, tmp_path: Path) -> None:
    damage_truncate(first(own_bank))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (".rejected", ".locks"):
        shutil.rmtree(own_bank.root / name, ignore_errors=True)
        (own_bank.root / name).symlink_to(elsewhere)
        with pytest.raises(FormatError, match=f"{name} is a symbolic link"):
            repair_index(own_bank.root)
        (own_bank.root / name).unlink()
    assert list(elsewhere.iterdir()) == []
    (own_bank.root / "bank.json").unlink()
    (own_bank.root / "index.parquet").unlink()
    os.mkfifo(own_bank.root / "index.parquet")
    with pytest.raises(FormatError, match="index.parquet is a named pipe"):
        repair_index(own_bank.root)
