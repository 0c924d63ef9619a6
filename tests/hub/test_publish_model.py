"""Publishing a model: its files, its card, hand-made changes of the card, and the snippet that the card shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard as HubCard
from PIL import Image

from hf_metaprune import AdaptResult, Bank, MetaPruner
from hf_metaprune.bank.publish import publish_bank
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import HubError, OptionError
from hf_metaprune.reporting.card import split_card
from hf_metaprune.reporting.publishing import publish_model
from hf_metaprune.result import load_result
from tests.hub import Call, LoopbackHub, run_python

TINY = {"steps": 2, "batch_size": 8, "eval_steps": (0,), "precision": "fp32"}


@pytest.fixture(scope="module")
def adapted_once(bank_folder: Path, task_data: TaskData) -> AdaptResult:
    task = task_data.select((0, 1, 3), seed=0)
    return MetaPruner.from_hub(bank_folder).adapt(task, by="leep", neighbors=2, **TINY)


def read_card(hub: LoopbackHub, repo_id: str = "me/pets") -> str:
    return hub.read_files(repo_id)["README.md"].decode()


def test_the_published_model_is_the_model(
    hub: LoopbackHub, result: AdaptResult, tmp_path: Path, task_data: TaskData
) -> None:
    from transformers import AutoModelForImageClassification, pipeline

    assert result.push_to_hub("me/pets", dtype="float32") == f"{hub.endpoint}/me/pets"
    model = AutoModelForImageClassification.from_pretrained("me/pets")
    image = Image.fromarray(task_data.evaluation.images[0].permute(1, 2, 0).numpy())
    scores = {f["label"]: f["score"] for f in pipeline("image-classification", "me/pets")(image)}
    assert scores == pytest.approx(result.predict(image)[0]["probabilities"], abs=1e-5)
    assert model.mask() == result.model.mask()
    everything = b"\n".join(hub.read_files("me/pets").values()).decode("latin-1")
    assert str(tmp_path.parent) not in everything
    assert "hf_token" not in everything


def test_the_card_says_what_was_measured_and_validates(hub: LoopbackHub, bank: Bank, task_data: TaskData) -> None:
    publish_bank(bank, "me/bank")
    pruner = MetaPruner.from_hub("me/bank")
    result = pruner.adapt(task_data.select((0, 1, 3), seed=0), by="leep", neighbors=2, **TINY)
    result.push_to_hub("me/pets", license="apache-2.0")
    data, text = split_card(read_card(hub))
    assert "measured in float32; the weights are stored as float16" in text
    assert "(confusion.png)" in text
    HubCard(read_card(hub)).validate()
    assert data["library_name"] == "hf-metaprune"
    assert (data["base_model"], data["base_model_relation"], data["license"]) == ("me/bank", "finetune", "apache-2.0")
    (entry,) = data["model-index"]
    assert entry["results"][0]["metrics"][0]["value"] == pytest.approx(result.report.accuracy, abs=1e-4)
    facts = data["metaprune"]
    weights = hub.read_files("me/pets")["model.safetensors"]
    assert (facts["labels"], facts["size"], facts["ratio"]) == (["cat", "dog", "daisy"], len(weights), 0.7)
    commit = hub.repo("me/bank").branches["main"]
    for neighbor in result.report.neighbors:
        assert f"[{neighbor['id']}](https://huggingface.co/me/bank/tree/{commit}/tasks/{neighbor['id']})" in text
        assert f"{neighbor['share']:.0%}" in text
    assert sum(n["share"] for n in result.report.neighbors) == pytest.approx(1, abs=1e-3)
    assert f"{result.report.params:,}" in text
    assert f"{result.report.latency_ms['model']:.1f}" in text
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text):
        assert hub.read_files("me/pets")[picture].startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_snippet_of_the_card_runs_as_shown(
    hub: LoopbackHub, result: AdaptResult, tmp_path: Path, photos: Path
) -> None:
    result.push_to_hub("me/pets")
    (code,) = re.findall(r"```python\n(.*?)```", read_card(hub), re.DOTALL)
    (tmp_path / "photo.jpg").write_bytes(next(photos.rglob("*.jpg")).read_bytes())
    prelude = f"import os, sys; sys.path.insert(0, os.getcwd()); os.chdir({str(tmp_path)!r})\n"
    process = run_python(hub, tmp_path / "another_home", prelude + code)
    assert "'label': 'cat'" in process.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
def test_the_snippet_of_a_bank_runs_as_shown(
    hub: LoopbackHub, bank: Bank, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_bank(bank, "me/bank")
    (code,) = re.findall(r"```python\n(.*?)```", read_card(hub, "me/bank"), re.DOTALL)
    monkeypatch.chdir(photos.parent)
    exec(code, {"__name__": "snippet"})
    assert "AdaptReport(" in capsys.readouterr().out
    assert (photos.parent / "model" / "README.md").exists()


def test_a_card_that_was_edited_by_hand_keeps_its_text(hub: LoopbackHub, result: AdaptResult) -> None:
    result.push_to_hub("me/pets")
    data, _ = split_card(read_card(hub))
    mine = read_card(hub).replace("## Limits", "## My own words\n\nBe kind.\n\n## Limits")
    mine = mine.replace("---\n", "---\nlicense: mit\nauthors: [me]\n", 1).replace("- pruned", "- pruned\n- cats")
    hub.put_files("me/pets", {"README.md": mine.encode()})
    result.model.config.ratio = 0.6
    result.push_to_hub("me/pets")
    now, body = split_card(read_card(hub))
    assert body.strip() == split_card(mine)[1].strip()
    assert (now["license"], now["authors"], now["metaprune"]["ratio"]) == ("mit", ["me"], 0.6)
    assert now["tags"] == [*data["tags"], "cats"]


def test_a_card_that_nobody_edited_is_made_anew(hub: LoopbackHub, result: AdaptResult) -> None:
    result.push_to_hub("me/pets")
    hub.put_files("me/pets", {"README.md": read_card(hub).replace("---\n", "---\nlicense: mit\n", 1).encode()})
    result.report.accuracy, result.report.notes = 0.125, []
    result.push_to_hub("me/pets")
    assert "Accuracy 12.5%" in read_card(hub)
    assert split_card(read_card(hub))[0]["license"] == "mit"


def test_a_card_that_is_edited_while_it_is_published(hub: LoopbackHub, result: AdaptResult) -> None:
    result.push_to_hub("me/pets")
    mine = read_card(hub).replace("## Limits", "## Mine")
    hub.faults.add(Call(lambda: hub.put_files("me/pets", {"README.md": mine.encode()})), method="POST", path="/commit/")
    result.model.config.ratio = 0.6
    result.push_to_hub("me/pets")
    assert hub.count(status=412) == 1
    assert "## Mine" in read_card(hub)


def test_publishing_the_same_model_again_changes_nothing(hub: LoopbackHub, result: AdaptResult, tmp_path: Path) -> None:
    folder = result.save_pretrained(tmp_path / "model")
    assert len(publish_model(load_result(folder), "me/pets").commits) == 1
    assert publish_model(load_result(folder), "me/pets").commits == []
    assert publish_model(load_result(folder), "me/pets", create_pr=True).commits == []
    assert len(hub.history("me/pets")) == 2  # with that which made the repo


def test_publishing_again_leaves_nothing_stale(hub: LoopbackHub, result: AdaptResult) -> None:
    result.push_to_hub("me/pets")
    hub.put_files("me/pets", {"votes.png": b"old", "notes.txt": b"mine"})
    result.report.vote_agreement = {}
    result.push_to_hub("me/pets")
    files = hub.read_files("me/pets")
    assert "votes.png" not in files
    assert files["notes.txt"] == b"mine"


def test_branches_pull_requests_and_private_repos(hub: LoopbackHub, result: AdaptResult) -> None:
    result.push_to_hub("me/pets", private=True)
    assert hub.repo("me/pets").private
    result.model.config.ratio = 0.6
    result.push_to_hub("me/pets", revision="smaller")
    ratios = {b: json.loads(hub.read_files("me/pets", b)["config.json"])["ratio"] for b in ("main", "smaller")}
    assert ratios == {"main": 0.7, "smaller": 0.6}
    hub.add_user("lab", token="hf_token_of_lab")
    hub.put_files("lab/pets", {"README.md": b"---\ntags: [x]\n---\n"})
    assert result.push_to_hub("lab/pets", create_pr=True) == f"{hub.endpoint}/lab/pets/discussions/1"
    assert "model.safetensors" not in hub.read_files("lab/pets")
    assert "model.safetensors" in hub.read_files("lab/pets", "refs/pr/1")
    result.model.config.ratio = 0.5
    assert result.push_to_hub("lab/pets", revision="refs/pr/1") == f"{hub.endpoint}/lab/pets/discussions/1"
    assert json.loads(hub.read_files("lab/pets", "refs/pr/1")["config.json"])["ratio"] == 0.5


def test_what_cannot_be_published_is_said(
    hub: LoopbackHub, result: AdaptResult, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_user("reader", token="hf_token_of_reader", role="read")
    for token, message in (("hf_wrong_token", "token is missing or wrong"), ("hf_token_of_reader", "may not do that")):
        with pytest.raises(HubError, match=message) as error:
            result.push_to_hub("me/pets", token=token)
        assert token not in str(error.value)
    with pytest.raises(HubError, match="may not do that"):
        result.push_to_hub("somebody/pets")
    with pytest.raises(OptionError, match="owner/name"):
        result.push_to_hub("pets")
    publish_bank(bank, "me/bank")
    with pytest.raises(HubError, match="holds a bank"):
        result.push_to_hub("me/bank")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="hf auth login"):
        result.push_to_hub("me/pets")
