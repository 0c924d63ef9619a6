"""WordNet: from labels to synsets, from synsets to tasks."""

from __future__ import annotations

import os

import pytest
import torch

from hf_metaprune.bank.bank import Bank
from hf_metaprune.errors import WordNetError
from hf_metaprune.similarity import Query, get_similarity
from hf_metaprune.similarity import wordnet as module
from hf_metaprune.task import Task, TaskData
from tests.conftest import needs_wordnet

pytestmark = needs_wordnet


@pytest.mark.parametrize(
    ("label", "synset"),
    [
        ("dog", "dog.n.01"),
        ("Dogs", "dog.n.01"),
        ("golden_retriever", "golden_retriever.n.01"),
        ("Golden Retriever", "golden_retriever.n.01"),
        ("golden-retriever", "golden_retriever.n.01"),
        ("goldenRetriever", "golden_retriever.n.01"),
        ("maple_tree", "tree.n.01"),  # the head noun, where WordNet lacks the compound
        ("pine_tree", "pine.n.01"),
        ("tench, Tinca tinca", "tench.n.01"),
        ("crane (bird)", "crane.n.01"),
        ("n01440764", "tench.n.01"),
        ("n01440764 something", "tench.n.01"),
        ("seal.n.09", "seal.n.09"),
        ("mice", "mouse.n.01"),
        ("dog 2", "dog.n.01"),
        ("Faces_easy", "face.n.01"),
    ],
)
def test_labels_are_understood(label: str, synset: str) -> None:
    found = module.find_synset(label)
    assert found is not None
    assert found.name() == synset


@pytest.mark.parametrize("label", ["qzxv", "n99999999", "nosuch.n.01", "123", "???", "zqélan", "zqx's"])
def test_labels_that_are_not_words_have_no_synset(label: str) -> None:
    assert module.find_synset(label) is None


def test_explicit_synsets_come_first() -> None:
    synsets = module.task_synsets(Task(("seal", "crane"), ("seal.n.09", None)))
    assert [s.name() for s in synsets] == ["seal.n.09", "crane.n.01"] or synsets[1].name().startswith("crane")


def test_task_similarity_is_symmetric_and_1_for_the_same_task() -> None:
    animals = module.task_synsets(Task(("cat", "dog", "wolf")))
    things = module.task_synsets(Task(("truck", "car")))
    assert module.task_similarity(animals, animals) == 1.0
    assert module.task_similarity(animals, things) == module.task_similarity(things, animals)
    pets = module.task_synsets(Task(("tiger", "fox")))
    assert module.task_similarity(animals, pets) > module.task_similarity(animals, things)
    assert module.task_similarity(animals, [None, None]) == 0.0


def test_a_class_without_a_match_lowers_the_similarity() -> None:
    a = module.task_synsets(Task(("cat", "dog")))
    wider = module.task_synsets(Task(("cat", "dog", "violin")))
    assert module.task_similarity(a, wider) < 1.0


def query(task: Task, data: TaskData) -> Query:
    return Query(task, data.train, torch.device("cpu"))


def test_ranking_reads_only_the_index_and_names_unknown_labels(bank: Bank, task_data: TaskData) -> None:
    q = query(Task(("puppy", "kitten", "lorry", "qzxv")), task_data)
    ranked = get_similarity("wordnet").rank(q, list(bank))
    assert ranked[0].entry.labels == ("cat", "dog", "truck")
    assert any("qzxv" in note for note in q.notes)


def test_labels_read_by_one_of_their_words_are_told(bank: Bank, task_data: TaskData) -> None:
    labels = ("maple_tree", "golden retriever", "n01440764 tenchy", "flurb fish", "Rolls", "zz dog")
    q = query(Task(labels, (None,) * 5 + ("dog.n.01",)), task_data)
    get_similarity("wordnet").rank(q, list(bank))
    assert [note.split(": ")[1] for note in q.notes] == ["maple_tree as tree.n.01, flurb fish as fish.n.01"]


def test_a_task_that_wordnet_does_not_know_is_an_error(bank: Bank, task_data: TaskData) -> None:
    with pytest.raises(WordNetError, match="qzxv.*by='leep'"):
        get_similarity("wordnet").rank(query(Task(("qzxv", "xvqz")), task_data), list(bank))


def test_missing_data_is_said_with_the_command_that_gets_it(tmp_path: os.PathLike, run_python) -> None:
    code = """
from hf_metaprune.errors import WordNetError
from hf_metaprune.similarity.wordnet import wordnet
import nltk
nltk.data.path[:] = []
try:
    wordnet()
except WordNetError as error:
    assert "python -m nltk.downloader wordnet" in str(error), error
    raise SystemExit(0)
raise SystemExit("no error")
"""
    run_python(code, env={"NLTK_DATA": str(tmp_path)})
