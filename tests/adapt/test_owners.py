"""No owner of models decides a vote alone, however many models it has and however few others there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hf_metaprune import Bank
from hf_metaprune.adapt.retrieval import find_voters
from hf_metaprune.adapt.voters import Voters
from hf_metaprune.bank.entry import Entry
from hf_metaprune.config import AdaptOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.similarity.similarity import SIMILARITIES, Query, Similarity

COMMIT = "0" * 40


class ByName(Similarity):
    """Entries in the order of their ids."""

    name, reference = "by-name", "tests"

    def scores(self, query: Query, entries: Sequence[Entry]) -> Mapping[str, float]:
        return {entry.id: -float(entry.id.rpartition("-")[2]) for entry in entries}


@dataclass(frozen=True)
class TrustingQuery(Query):
    """A query that leaves out the entries with some numbers, and opens no files."""

    bad: frozenset[int] = frozenset()

    def usable(self, entry: Entry, check: Any) -> bool:
        return int(entry.id.rpartition("-")[2]) not in self.bad


class Entries(list):
    """A bank of entries that have no files."""

    title = "the bank"


@pytest.fixture(scope="module", autouse=True)
def similarity() -> Any:
    SIMILARITIES._parts["by-name"] = ByName()
    yield
    del SIMILARITIES._parts["by-name"]


@pytest.fixture(scope="module")
def an_entry(bank_folder: Any) -> Entry:
    return next(iter(Bank.open(bank_folder)))


def vote(
    an_entry: Entry,
    data: TaskData,
    owners: Sequence[str | None],
    n: int | None,
    bad: Sequence[int] = (),
    **options: Any,
) -> tuple[Voters, list[str]]:
    """Let entries of these owners, nearest first, vote."""
    entries = Entries(
        replace(an_entry, id=f"model-{i}", repo_id=f"{owner}/model-{i}" if owner else None, revision=COMMIT)
        for i, owner in enumerate(owners)
    )
    query = TrustingQuery(data.task, data.train, torch.device("cpu"), bad=frozenset(bad))
    voters = find_voters(entries, query, AdaptOptions(by="by-name", neighbors=n, **options))  # type: ignore[arg-type]
    return voters, query.record.notes


def votes(voters: Voters) -> Counter[str | None]:
    return Counter(neighbor.entry.owner for neighbor in voters.neighbors)


owner_lists = st.lists(
    st.sampled_from(["ann", "ann", "ann", "bob", "bob", "cat", "dan", None]), min_size=1, max_size=24
)


@given(owners=owner_lists, n=st.one_of(st.none(), st.integers(1, 9)), bad=st.sets(st.integers(0, 23), max_size=4))
@example(owners=["ann"] * 10 + ["bob"], n=5, bad=set())
@example(owners=["ann"] * 10 + ["bob", "cat"], n=7, bad=set())
@example(owners=["ann"] * 10 + ["bob"] * 10, n=9, bad=set())
@example(owners=["ann", "bob"], n=2, bad=set())
def test_an_owner_has_fewer_than_half_of_the_votes_or_one(
    an_entry: Entry, task_data: TaskData, owners: list[str | None], n: int | None, bad: set[int]
) -> None:
    usable = [owner for i, owner in enumerate(owners) if i not in bad]
    n = n if n is None else min(n, len(usable))
    if not usable or n == 0 or len(set(owners)) == 1:
        return
    voters, notes = vote(an_entry, task_data, owners, n, tuple(bad))
    count = len(voters.neighbors)
    assert 1 <= count <= (n or len(owners))
    for owner, own in votes(voters).items():
        assert owner is None or own == 1 or 2 * own < count
    assert count == most_voters(usable, n or len(usable))
    assert count == (n or len(usable)) or any("(votes_per_owner)" in note for note in notes)


def most_voters(owners: Sequence[str | None], n: int) -> int:
    """The most entries, up to n, that can vote if an owner has fewer than half of the votes, or one."""

    def can_vote(count: int) -> bool:
        allowed = [votes for votes in range(1, count) if 2 * votes < count] or [1]
        counts = Counter(owners)
        return counts.pop(None, 0) + sum(min(max(allowed), own) for own in counts.values()) >= count

    return max(count for count in range(1, n + 1) if can_vote(count))


@pytest.mark.parametrize(
    ("owners", "n", "expected"),
    [
        (["ann"] * 10 + ["bob"], 5, {"ann": 1, "bob": 1}),
        (["ann"] * 10 + ["bob", "cat"], 7, {"ann": 1, "bob": 1, "cat": 1}),
        (["ann"] * 10 + ["bob"] * 10, 9, {"ann": 1, "bob": 1}),
        (["ann"] * 10 + ["bob", "cat", "dan"], 5, {"ann": 2, "bob": 1, "cat": 1, "dan": 1}),
        (["ann"] * 10 + [None] * 3, 5, {"ann": 2, None: 3}),
        (["ann"] * 4, 3, {"ann": 3}),
        (["ann"] * 4, 1, {"ann": 1}),
    ],
)
def test_fewer_vote_where_others_have_few_models(
    an_entry: Entry, task_data: TaskData, owners: list[str | None], n: int, expected: dict[str | None, int]
) -> None:
    voters, notes = vote(an_entry, task_data, owners, n)
    assert votes(voters) == expected
    assert any("votes_per_owner" in note for note in notes) == (sum(expected.values()) < n)
    assert any("decides the vote alone" in note for note in notes) == (set(owners) == {"ann"})


def test_the_nearest_models_of_an_owner_vote(an_entry: Entry, task_data: TaskData) -> None:
    voters, _ = vote(an_entry, task_data, ["ann", "ann", "bob", "ann", "cat", "dan"], 5)
    assert [neighbor.entry.id for neighbor in voters.neighbors] == [
        "model-0",
        "model-1",
        "model-2",
        "model-4",
        "model-5",
    ]
    assert [neighbor.entry.id for neighbor in voters.runners_up] == ["model-3"]


def test_a_user_may_set_another_limit(an_entry: Entry, task_data: TaskData) -> None:
    voters, _ = vote(an_entry, task_data, ["ann"] * 10 + ["bob"], 5, votes_per_owner=4)
    assert votes(voters) == {"ann": 4, "bob": 1}


def test_an_owner_is_one_however_its_name_is_written(an_entry: Entry) -> None:
    entries = [replace(an_entry, id=f"e-{i}", repo_id=f"{owner}/m") for i, owner in enumerate(("Eve", "eve", "EVE"))]
    assert {entry.owner for entry in entries} == {"eve"}
