"""The fixtures of the loopback Hub, and what is published to it."""

from __future__ import annotations

import pytest

from hf_metaprune import AdaptResult, Bank, MetaPruner
from hf_metaprune.data.task import TaskData
from tests.hub.edits import TINY
from tests.hub.fixtures import hub

__all__ = ["hub"]


@pytest.fixture
def task(task_data: TaskData) -> TaskData:
    return task_data.select((0, 1, 2), seed=0)


@pytest.fixture
def result(bank: Bank, task: TaskData) -> AdaptResult:
    return MetaPruner(bank).adapt(task, neighbors=2, **TINY)
