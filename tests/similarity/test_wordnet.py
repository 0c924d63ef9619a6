"""Ranking by WordNet: near classes make near tasks."""

from __future__ import annotations

import random
from itertools import islice

import pytest
import torch

from hf_metaprune.bank.bank import Bank
from hf_metaprune.data.synsets import find_synset, wordnet
from hf_metaprune.data.task import Task, TaskData
from hf_metaprune.errors import WordNetError
from hf_metaprune.similarity import Query, get_similarity
from hf_metaprune.similarity import wordnet as module
from tests.conftest import needs_wordnet

pytestmark = needs_wordnet


@pytest.mark.slow
def test_explicit_synsets_come_first() -> None:
    synsets = module.task_synsets(Task(("seal", "crane"), ("seal.n.09", None)))
    assert [s.name() for s in synsets] == ["seal.n.09", find_synset("crane").name()]


def test_task_similarity_is_symmetric_and_1_for_the_same_task() -> None:
    animals = module.task_synsets(Task(("cat", "dog", "wolf")))
    things = module.task_synsets(Task(("truck", "car")))
    assert module.task_similarity(animals, animals) == 1.0
    assert module.task_similarity(animals, things) == module.task_similarity(things, animals)
    pets = module.task_synsets(Task(("tiger", "fox")))
    assert module.task_similarity(animals, pets) > module.task_similarity(animals, things)
    assert module.task_similarity(animals, [None, None]) == 0.0


@pytest.mark.slow
def test_wu_and_palmer_is_that_of_nltk_in_both_directions() -> None:
    rng = random.Random(0)
    nouns, verbs = (list(islice(wordnet().all_synsets(pos), 4000)) for pos in "nv")
    some = rng.sample(nouns, 8)
    pairs = [(a, rng.choice(nouns)) for a in some] + [(a, rng.choice(a.hypernyms() or [a])) for a in some]
    pairs += [(a, rng.choice([c for b in a.hypernyms() for c in b.hyponyms()] or [a])) for a in some]
    pairs += [(rng.choice(verbs), rng.choice(verbs + nouns)) for _ in range(8)]
    for a, b in pairs:
        slow = max(a.wup_similarity(b) or 0.0, b.wup_similarity(a) or 0.0)
        assert module.wu_palmer(a, b) == pytest.approx(1.0 if a == b else slow), (a, b)


def test_a_class_without_a_match_lowers_the_similarity() -> None:
    a = module.task_synsets(Task(("cat", "dog")))
    wider = module.task_synsets(Task(("cat", "dog", "violin")))
    assert module.task_similarity(a, wider) < 1.0


def query(task: Task, data: TaskData) -> Query:
    return Query(task, data.train, torch.device("cpu"))


def test_ranking_reads_only_the_index_and_names_unknown_labels(bank: Bank, task_data: TaskData) -> None:
    q = query(Task(("puppy", "kitten", "lorry", "qzxv")), task_data)
    neighbors = get_similarity("wordnet").rank(q, list(bank))
    assert neighbors[0].entry.labels == ("cat", "dog", "truck")
    assert any("qzxv" in note for note in q.record.notes)


def test_labels_read_by_one_of_their_words_are_told(bank: Bank, task_data: TaskData) -> None:
    labels = ("maple_tree", "golden retriever", "n01440764 tenchy", "flurb fish", "Rolls", "zz dog")
    q = query(Task(labels, (None,) * 5 + ("dog.n.01",)), task_data)
    get_similarity("wordnet").rank(q, list(bank))
    assert [note.split(": ")[1] for note in q.record.notes] == ["maple_tree as tree.n.01, flurb fish as fish.n.01"]


def test_a_task_that_wordnet_does_not_know_is_an_error(bank: Bank, task_data: TaskData) -> None:
    with pytest.raises(WordNetError, match="qzxv.*by='leep'"):
        get_similarity("wordnet").rank(query(Task(("qzxv", "xvqz")), task_data), list(bank))
