"""Fixtures of the fuzzing tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_metaprune.data.task import TaskData
from tests.fuzz.corpus import Corpus, make_corpus
from tests.hub.fixtures import hub

__all__ = ["hub"]


@pytest.fixture(scope="session")
def corpus(bank_folder: Path, task_data: TaskData, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus") / "files", bank_folder, task_data)
