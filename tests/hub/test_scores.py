"""Score masks on the Hub: published with their entries, fetched when they vote, checked, and voting from anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.bank.factory import build_bank
from hf_metaprune.bank.publish import publish_bank
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import FormatError
from hf_metaprune.methods import LearnedScoreOptions
from hf_metaprune.models.base_model import BaseModel
from tests.hub import LoopbackHub
from tests.hub.test_lazy_bank import forget

TINY = {"steps": 1, "batch_size": 8, "eval_steps": (0,), "precision": "fp32", "by": "leep"}
SCORES = "mask_scores.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vit_base: BaseModel, task_data: TaskData) -> Path:
    path = tmp_path_factory.mktemp("scores") / "bank"
    bank = Bank.create(path, vit_base, name="tiny vit", defaults={"ratio": 0.5})
    options = LearnedScoreOptions(ratio=0.5, steps=6, batch_size=18)
    tasks = [(0, 1, 2), (3, 4, 5)]
    list(build_bank(bank, task_data, tasks, method="amp", options=options, device=torch.device("cpu")))
    return path


@pytest.mark.slow
def test_scores_go_along_and_are_fetched_when_they_vote(hub: LoopbackHub, folder: Path, task: TaskData) -> None:
    bank = Bank.open(folder)
    publish_bank(bank, "me/vit")
    assert not publish_bank(bank, "me/vit").commits  # nothing is sent twice
    forget(hub)
    pruner = MetaPruner.from_hub("me/vit")
    score_paths = lambda: [request.path for request in hub.requests if SCORES in request.path]  # noqa: E731
    pruner.adapt(task, neighbors=1, **TINY)
    assert score_paths() == []
    report = pruner.adapt(task, neighbors=1, strategy="smsp", ratio=0.3, **TINY).report
    (voter,) = report.neighbors
    (other,) = {entry.id for entry in bank} - {voter["id"]}
    assert any(voter["id"] in path for path in score_paths())
    assert not any(other in path for path in score_paths())
    assert pruner.bank[voter["id"]].score_mask() == bank[voter["id"]].score_mask()
    local = MetaPruner(bank).adapt(task, neighbors=1, strategy="smsp", ratio=0.3, **TINY).report
    assert local.accuracy_at_step == report.accuracy_at_step


def test_scores_that_somebody_swapped_do_not_vote(hub: LoopbackHub, folder: Path, task: TaskData) -> None:
    bank = Bank.open(folder)
    publish_bank(bank, "me/vit")
    one, other = bank
    hub.put_files("me/vit", {f"{one.path}/{SCORES}": (other.folder / SCORES).read_bytes()})
    forget(hub)
    entry = Bank.from_hub("me/vit")[one.id]
    with pytest.raises(FormatError, match="its sha256 is not that of the index"):
        entry.score_mask()
    report = MetaPruner.from_hub("me/vit").adapt(task, strategy="smsp", neighbors=1, **TINY).report
    assert [n["id"] for n in report.neighbors] == [other.id]
    assert any(one.id in note for note in report.notes)
    assert publish_bank(bank, "me/vit").commits  # publishing again puts it right
    forget(hub)
    assert Bank.from_hub("me/vit")[one.id].score_mask() == one.score_mask()


def test_a_model_that_scores_made_votes_with_them(
    hub: LoopbackHub, folder: Path, task: TaskData, task_data: TaskData
) -> None:
    bank = Bank.open(folder)
    result = MetaPruner(bank).adapt(task, strategy="smsp", neighbors=2, **TINY)
    result.push_to_hub("me/model", dtype="float32")
    forget(hub)
    commons = Bank.from_search(bank)
    (entry,) = commons
    assert entry.score_mask() == result.model.score_mask
    again = MetaPruner(commons).adapt(task_data.select((1, 2, 3), seed=0), strategy="smsp", ratio=0.3, **TINY)
    assert again.report.neighbors[0]["repo_id"] == "me/model"
    assert again.model.score_mask is not None
