"""Synsets: what a label means in WordNet."""

from __future__ import annotations

import os

import pytest

from hf_metaprune.data.synsets import find_synset
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
    wordnet_synset = find_synset(label)
    assert wordnet_synset is not None
    assert wordnet_synset.name() == synset


@pytest.mark.parametrize("label", ["qzxv", "n99999999", "nosuch.n.01", "123", "???", "zqélan", "zqx's"])
def test_labels_that_are_not_words_have_no_synset(label: str) -> None:
    assert find_synset(label) is None


def test_missing_data_is_said_with_the_command_that_gets_it(tmp_path: os.PathLike, run_python) -> None:
    code = """
from hf_metaprune.errors import WordNetError
from hf_metaprune.data.synsets import wordnet
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
