"""Two-stage retrieval: who is shortlisted, what is fetched, and what happens when the shortlist is no good."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.bank.sketch import pack_sketch
from hf_metaprune.config import AdaptOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import WordNetError
from hf_metaprune.similarity import Query, auto, get_similarity
from hf_metaprune.similarity.auto import guess_scores
from tests.conftest import needs_wordnet


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four entries are a large bank, of which one is looked at."""
    for name, value in {
        "SMALL_BANK": 2,
        "SMALL_BANK_UNSKETCHED": 2,
        "MIN_SHORTLIST": 1,
        "SHORTLIST_SHARE": 0.25,
        "SHORTLIST_SHARE_UNSKETCHED": 0.5,
    }.items():
        monkeypatch.setattr(auto, name, value)


def query(task_data: TaskData, strict: bool = True) -> Query:
    target = task_data.select((0, 1, 2))
    return Query(target.task, target.train, torch.device("cpu"), samples=30, strict=strict)


def nearest(bank: Bank, task_query: Query, n: int) -> list[str]:
    return [x.entry.id for x in MetaPruner(bank).nearest(task_query, AdaptOptions(by="auto", neighbors=n))]


def test_sketches_rank_like_the_entries_themselves(bank: Bank, task_data: TaskData) -> None:
    task_query = query(task_data)
    guess, exact = guess_scores(task_query, list(bank)), get_similarity("leep+labels").scores(task_query, list(bank))
    assert np.corrcoef([guess[i] for i in exact], list(exact.values()))[0, 1] > 0.9


def test_only_the_shortlist_is_looked_at(own_bank: Bank, task_data: TaskData) -> None:
    expected = nearest(own_bank, query(task_data), 4)[0]
    for entry in own_bank:
        if entry.id != expected:
            shutil.rmtree(entry.folder)
    task_query = query(task_data)
    assert nearest(own_bank, task_query, 1) == [expected]
    exact = query(task_data, strict=False)
    get_similarity("leep").scores(exact, [own_bank[expected]])
    assert task_query.record.retrieval_flops > exact.record.retrieval_flops > 0  # of the base, and of one entry


def test_a_small_bank_is_looked_at_whole(bank: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "SMALL_BANK", 4)
    by = {name: get_similarity(name).rank(query(task_data), list(bank)) for name in ("leep+labels", "auto")}
    assert get_similarity("auto").shortlist(query(task_data), list(bank)) == list(bank)
    assert [(n.entry.id, n.score) for n in by["auto"]] == [(n.entry.id, n.score) for n in by["leep+labels"]]


def test_the_next_ones_are_looked_at_where_the_first_cannot_be_used(own_bank: Bank, task_data: TaskData) -> None:
    order = nearest(own_bank, query(task_data), 4)
    assert sorted(order) == sorted(own_bank.entries)
    weights = own_bank[order[0]].folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    task_query = query(task_data, strict=False)
    assert order[0] not in nearest(own_bank, task_query, 2)
    assert order[0] in task_query.record.notes[0]


def test_a_sketch_of_another_base_is_left_out(own_bank: Bank, task_data: TaskData) -> None:
    first = next(iter(own_bank))
    own_bank.update_index({first.id: replace(first, sketch=pack_sketch(np.ones((6, 3))))})
    task_query = query(task_data, strict=False)
    assert first.id not in guess_scores(task_query, list(own_bank))
    assert "a sketch of 5 features" in task_query.record.notes[0]


@pytest.mark.slow
@needs_wordnet
def test_entries_without_a_sketch_are_shortlisted_by_wordnet(own_bank: Bank, task_data: TaskData) -> None:
    own_bank.update_index({e.id: replace(e, sketch=None) for e in own_bank})
    some = get_similarity("auto").shortlist(query(task_data), list(own_bank))
    ids = [n.entry.id for n in get_similarity("wordnet").rank(query(task_data), list(own_bank))]
    assert [e.id for e in some] == ids[:2]


def test_without_wordnet_they_are_all_looked_at(
    own_bank: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(task: object) -> None:
        raise WordNetError("the WordNet data is missing")

    own_bank.update_index({e.id: replace(e, sketch=None) for e in own_bank})
    monkeypatch.setattr("hf_metaprune.similarity.wordnet.task_synsets", missing)
    task_query = query(task_data)
    assert get_similarity("auto").shortlist(task_query, list(own_bank)) == list(own_bank)
    assert "all 4 entries without a sketch are ranked" in task_query.record.notes[0]
