"""LEEP against the paper's equations, written out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_metaprune.bank.bank import Bank
from hf_metaprune.data.task import Task, TaskData
from hf_metaprune.similarity import Query, get_similarity
from hf_metaprune.similarity.leep import leep


def slow_leep(theta: np.ndarray, y: np.ndarray) -> float:
    """Equations 1 and 2 of Nguyen et al. as they are printed."""
    n, sources = theta.shape
    classes = sorted(set(y.tolist()))
    joint = {(c, z): sum(theta[i, z] for i in range(n) if y[i] == c) / n for c in classes for z in range(sources)}
    marginal = [sum(joint[c, z] for c in classes) for z in range(sources)]
    total = 0.0
    for i in range(n):
        likelihood = sum(joint[y[i], z] / marginal[z] * theta[i, z] for z in range(sources) if marginal[z] > 0)
        total += math.log(likelihood)
    return total / n


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 4), st.integers(0, 999))
def test_leep_equals_the_equations(n: int, sources: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    theta = rng.dirichlet(np.ones(sources), n)
    y = rng.integers(0, classes, n) * 7 - 3  # any integers
    assert leep(theta, y) == pytest.approx(slow_leep(theta, y))


def test_source_classes_without_mass_give_no_nan() -> None:
    theta = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert leep(theta, np.array([0, 1])) == pytest.approx(math.log(0.5))


def test_a_source_that_tells_the_classes_apart_scores_0_and_one_that_does_not_scores_their_entropy() -> None:
    y = np.array([0, 0, 1, 1])
    assert leep(np.eye(2)[y], y) == 0.0
    assert leep(np.full((4, 2), 0.5), y) == pytest.approx(-math.log(2))


def test_float32_underflow_does_not_matter() -> None:
    theta = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert math.isfinite(leep(theta, np.array([5, 5])))


def test_ranking_a_bank(bank: Bank, task_data: TaskData) -> None:
    target = task_data.select((0, 1, 2))
    query = Query(target.task, target.train, torch.device("cpu"), samples=30, seed=0)
    neighbors = get_similarity("leep").rank(query, list(bank))
    assert len(neighbors) == len(bank)
    assert neighbors[0].entry.labels == ("cat", "dog", "truck")  # the very task is the nearest
    scores = [n.score for n in neighbors]
    assert scores == sorted(scores, reverse=True)
    again = get_similarity("leep").rank(query, list(bank)[::-1])
    assert [n.entry.id for n in again] == [n.entry.id for n in neighbors]


def test_equal_scores_are_ordered_by_id(bank: Bank, task_data: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    leep_similarity = get_similarity("leep")
    monkeypatch.setattr(type(leep_similarity), "scores", lambda _self, _query, entries: {e.id: 1.0 for e in entries})
    query = Query(task_data.task, task_data.train, torch.device("cpu"))
    assert [n.entry.id for n in leep_similarity.rank(query, list(bank)[::-1])] == sorted(e.id for e in bank)
    assert leep_similarity.weight(-1.0) == pytest.approx(math.exp(-1))


def test_known_classes_count_where_images_are_too_few_to_tell(bank: Bank, task_data: TaskData) -> None:
    target = task_data.select((0, 1, 2), per_class=1)
    target.train.images[:] = 128  # nothing to see
    query = Query(target.task, target.train, torch.device("cpu"))
    by_leep = {n.entry.id: n.score for n in get_similarity("leep").rank(query, list(bank))}
    neighbors = get_similarity("leep+labels").rank(query, list(bank))
    assert neighbors[0].entry.labels == target.task.labels
    for n in neighbors:
        share = len(set(n.entry.labels) & set(target.task.labels)) / 3
        assert n.score == pytest.approx(by_leep[n.entry.id] + share / 2)
    strangers = replace(query, task=Task(("qa", "qb", "qc")))
    assert {n.entry.id: n.score for n in get_similarity("leep+labels").rank(strangers, list(bank))} == by_leep
