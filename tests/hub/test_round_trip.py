"""The whole way over real HTTP: a bank, a model made from it, and that model's vote for the next task."""

from __future__ import annotations

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.data.task import TaskData
from tests.hub import LoopbackHub

TINY = {"steps": 2, "batch_size": 8, "eval_steps": (0,), "precision": "fp32"}


def test_a_model_of_a_published_bank_votes_for_the_next_task(hub: LoopbackHub, bank: Bank, task_data: TaskData) -> None:
    publication = bank.push_to_hub("me/bank")
    assert sorted(publication.added) == sorted(bank.entries)
    hub.reset_log()
    pruner = MetaPruner.from_hub("me/bank")
    assert [e.row() for e in pruner.bank] == [e.row() for e in bank]
    assert len(hub.requests) == 2  # of the index, whose header names the commit, and its body
    result = pruner.adapt(task_data.select((0, 1, 3), seed=0), by="leep", neighbors=2, **TINY)
    assert [n["repo_id"] for n in result.report.neighbors] == ["me/bank"] * 2
    result.push_to_hub("me/pets")
    commons = MetaPruner.from_search("me/bank")
    assert (list(commons.bank.entries), commons.bank.skip_reasons) == (["me--pets"], {})
    again = commons.adapt(task_data.select((0, 1, 4), seed=0), by="leep", neighbors=1, **TINY)
    voter = again.report.neighbors[0]
    assert (voter["repo_id"], voter["revision"], voter["share"]) == (
        "me/pets",
        hub.repo("me/pets").branches["main"],
        1.0,
    )
