"""The fixtures of the loopback Hub, and what is published to it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from hf_metaprune import AdaptResult, MetaPruner
from hf_metaprune.data.task import TaskData
from tests.hub.edits import TINY
from tests.hub.fixtures import hub

__all__ = ["hub"]


@pytest.fixture
def task(task_data: TaskData) -> TaskData:
    return task_data.select((0, 1, 2), seed=0)


@pytest.fixture(scope="session")
def adapted_once(bank_folder: Path, task_data: TaskData) -> AdaptResult:
    return MetaPruner.from_hub(bank_folder).adapt(task_data.select((0, 1, 2), seed=0), neighbors=2, **TINY)


@pytest.fixture
def result(adapted_once: AdaptResult) -> AdaptResult:
    """Return a model of the test's own."""
    return copy.deepcopy(adapted_once)
