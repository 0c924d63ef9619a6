"""Sketches: what they guess, how they are packed, and where they go."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_metaprune import Bank
from hf_metaprune.bank.factory import sketch_bank
from hf_metaprune.bank.repair import repair_index
from hf_metaprune.bank.sketch import (
    MAX_FEATURES,
    BaseFeatures,
    Sketcher,
    guess_probabilities,
    pack_sketch,
    project_features,
    unpack_sketch,
)
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import FormatError
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.training.forward import predict_logits

CPU = torch.device("cpu")


@given(st.integers(1, 40), st.integers(1, 6), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_packing_loses_half_a_step(features: int, classes: int, size: float, seed: int) -> None:
    sketch = np.random.default_rng(seed).normal(0, size, (features + 1, classes))
    copy = unpack_sketch(pack_sketch(sketch), classes)
    step = np.abs(sketch[:-1]).max(0) / 127
    assert (np.abs(copy[:-1] - sketch[:-1]) <= 0.57 * step + 127 * 6e-8).all()  # float16 scales round, too
    assert copy[-1] == pytest.approx(sketch[-1], rel=1e-3, abs=1e-6)


def test_a_sketch_guesses_what_is_linear_in_the_base(base: BaseModel, task_data: TaskData) -> None:
    torch.manual_seed(3)
    model = base.whole(("a", "b", "c"))
    sketch = unpack_sketch(Sketcher(base, task_data.train, CPU)(model), 3)
    guess = guess_probabilities(BaseFeatures(base, CPU)(task_data.evaluation), sketch)
    true = predict_logits(model, task_data.evaluation, CPU).softmax(1).numpy()
    assert guess.sum(1) == pytest.approx(1)
    assert np.corrcoef(guess.ravel(), true.ravel())[0, 1] > 0.97


def test_features_of_large_bases_are_projected_in_the_same_way_for_ever() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2048)).astype(np.float32)
    projection = project_features(x)
    assert projection.shape == (20, MAX_FEATURES)
    assert projection @ projection.T * 2048 / MAX_FEATURES == pytest.approx(x @ x.T, abs=500)  # 2048 on the diagonal
    one = project_features(np.eye(2048, dtype=np.float32)[:1]) * 2048**0.5
    assert one[0, :8].round().astype(int).tolist() == [-1, 1, 1, -1, 1, 1, 1, 1]
    assert (project_features(x[:, :MAX_FEATURES]) == x[:, :MAX_FEATURES]).all()


def test_a_built_bank_has_sketches_that_survive_a_repair(own_bank: Bank) -> None:
    before = {e.id: e.sketch for e in own_bank}
    assert all(before.values())
    repair_index(own_bank.root)
    assert {e.id: e.sketch for e in Bank.open(own_bank.root)} == before


def test_sketches_are_made_for_entries_that_have_none(own_bank: Bank, task_data: TaskData) -> None:
    first, *others = own_bank
    own_bank.update_index({e.id: replace(e, sketch=None) for e in others})
    ids = sketch_bank(own_bank, task_data.train, device=CPU)
    assert ids == [e.id for e in others]
    again = Bank.open(own_bank.root)
    assert all(e.sketch for e in again)
    assert again[first.id].sketch == first.sketch
    assert sketch_bank(again, task_data.train, device=CPU) == []


def test_an_entry_that_is_removed_meanwhile_does_not_come_back(own_bank: Bank) -> None:
    first, second, *_ = own_bank
    Bank.open(own_bank.root).remove(first.id)
    own_bank.update_index({first.id: first, second.id: replace(second, sketch=None)}, known_only=True)
    assert first.id not in own_bank
    assert own_bank[second.id].sketch is None


def test_an_index_without_the_column_is_read_and_added_to(own_bank: Bank) -> None:
    index = own_bank.root / "index.parquet"
    sketches = {e.id: e.sketch for e in own_bank}
    pq.write_table(pq.read_table(index).drop_columns(["sketch"]), index)
    bank = Bank.open(own_bank.root)
    assert [e.sketch for e in bank] == [None] * 4
    last = list(bank)[-1]
    shutil.copytree(last.folder, own_bank.root / "tasks" / "copy")
    bank.update_index({"copy": replace(last, id="copy", path="tasks/copy", sketch=sketches[last.id])})
    assert [e.id for e in Bank.open(own_bank.root) if e.sketch] == ["copy"]


@pytest.mark.parametrize("packed", [b"", b"x" * 12, b"x" * 16, b"x" * 3 * (MAX_FEATURES + 5)])
def test_a_sketch_of_an_odd_length_is_refused(own_bank: Bank, packed: bytes) -> None:
    row = next(iter(own_bank)).row() | {"sketch": packed}
    with pytest.raises(FormatError, match="sketch"):
        type(next(iter(own_bank))).from_row(own_bank, row)


def test_values_that_are_not_finite_are_refused() -> None:
    packed = pack_sketch(np.ones((5, 2)))
    with pytest.raises(FormatError, match="finite"):
        unpack_sketch(b"\x00\x7e" + packed[2:], 2)
