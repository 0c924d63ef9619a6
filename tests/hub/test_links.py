"""No publishing command sends what a link points to, nor values that the library does not know."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from hf_metaprune import AdaptResult, Bank, MetaPruner, load_result
from hf_metaprune.bank import commits
from hf_metaprune.bank.factory import copy_subset
from hf_metaprune.bank.publish import add_entries, publish_bank
from hf_metaprune.bank.validation import validate_bank
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import FormatError, MetaPruneError
from hf_metaprune.models.public_files import check_public_header
from tests.bank.edits import first
from tests.conftest import first_by_default
from tests.hub import LoopbackHub

SECRET = "aws_secret_access_key"
FILES_OF_ENTRIES = ("preprocessor_config.json", "config.json", "model.safetensors", "mask_scores.safetensors")
FILES_OF_BASES = ("preprocessor_config.json", "config.json", "model.safetensors")
FILES_OF_BANKS = ("bank.json", "index.parquet")

Replace = Callable[[Path], None]


def files_with_secret(hub: LoopbackHub, repo_id: str) -> list[str]:
    """Return the names of the files of a repo that hold the secret."""
    return [name for name, content in hub.read_files(repo_id).items() if SECRET.encode() in content]


def received(hub: LoopbackHub) -> bytes:
    """Return everything that any repo of the Hub holds, committed or only uploaded."""

    def contents() -> Iterator[bytes]:
        for repo in hub.store.repos.values():
            yield from (blob.data for blob in repo.uploaded.values())
            yield from (blob.data for commit in repo.commits.values() for blob in commit.files.values())

    return b"\n".join(contents())


def link_to_secret(path: Path) -> None:
    """Put a link in the place of a file, to a file elsewhere that a reader would accept, with a secret in it."""
    elsewhere = path.parents[3] / "private" / path.name
    elsewhere.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        tensors = load_file(path) if path.exists() else {}
        save_file(tensors, elsewhere, {"note": SECRET})
    elif path.suffix == ".json":
        values = json.loads(path.read_text()) if path.exists() else {}
        elsewhere.write_text(json.dumps(values | {SECRET: SECRET, "image_processor_type": "BitImageProcessor"}))
    else:
        elsewhere.write_bytes((path.read_bytes() if path.exists() else b"") + SECRET.encode())
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)


def link_to_any_file(path: Path) -> None:
    elsewhere = path.parents[3] / "private.txt"
    elsewhere.write_text(SECRET)
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)


def put_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


REPLACEMENTS: tuple[Replace, ...] = (link_to_secret, link_to_any_file, put_pipe)
replacements = pytest.mark.parametrize("replace", first_by_default(*REPLACEMENTS))


def refuse(name: str, publish: Callable[[], object], hub: LoopbackHub) -> None:
    """Check that a command names a file as the reason to refuse, and that the Hub has received nothing of it."""
    with pytest.raises(MetaPruneError, match="is a (symbolic link|named pipe)") as error:
        publish()
    assert name in str(error.value)
    assert SECRET.encode() not in received(hub)


def first_entry(bank: Bank) -> Path:
    return next(iter(bank)).folder


@replacements
@pytest.mark.parametrize("name", first_by_default(*FILES_OF_ENTRIES))
def test_a_bank_with_a_link_is_not_published(hub: LoopbackHub, own_bank: Bank, name: str, replace: Replace) -> None:
    replace(first_entry(own_bank) / name)
    refuse(name, lambda: publish_bank(Bank.open(own_bank.root), "me/bank"), hub)
    assert not hub.has_repo("me/bank")
    assert any(name in str(problem) for problem in validate_bank(Bank.open(own_bank.root)))


@replacements
@pytest.mark.parametrize("name", first_by_default(*FILES_OF_ENTRIES))
def test_what_became_a_link_is_not_published_again(
    hub: LoopbackHub, own_bank: Bank, name: str, replace: Replace
) -> None:
    publish_bank(own_bank, "me/bank")
    replace(first_entry(own_bank) / name)
    for options in ({}, {"delete": True}):
        refuse(name, lambda options=options: publish_bank(Bank.open(own_bank.root), "me/bank", **options), hub)
    assert len(hub.history("me/bank")) == 2  # of which the Hub makes the first


@replacements
@pytest.mark.parametrize("name", first_by_default(*FILES_OF_BASES))
def test_a_base_with_a_link_is_not_published(hub: LoopbackHub, own_bank: Bank, name: str, replace: Replace) -> None:
    replace(own_bank.base_folder / name)
    refuse(name, lambda: publish_bank(Bank.open(own_bank.root), "me/bank"), hub)
    assert not hub.has_repo("me/bank")
    assert any(name in str(problem) for problem in validate_bank(Bank.open(own_bank.root)))


@pytest.mark.parametrize("replace", first_by_default(link_to_secret, put_pipe))
@pytest.mark.parametrize("name", first_by_default(*FILES_OF_BANKS))
def test_the_files_of_a_bank_are_no_links(hub: LoopbackHub, own_bank: Bank, name: str, replace: Replace) -> None:
    replace(own_bank.root / name)
    refuse(name, lambda: publish_bank(Bank.open(own_bank.root), "me/bank"), hub)


def test_the_folders_of_a_bank_are_no_links(hub: LoopbackHub, own_bank: Bank, tmp_path: Path) -> None:
    entry, base, tasks = first_entry(own_bank), own_bank.base_folder, own_bank.root / "tasks"
    for folder in (entry, base, tasks):
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
        refuse(folder.name, lambda: publish_bank(Bank.open(own_bank.root), "me/bank"), hub)
        assert any("is a symbolic link" in str(problem) for problem in validate_bank(Bank.open(own_bank.root)))
        folder.unlink()
        (tmp_path / "elsewhere").rename(folder)
    assert publish_bank(Bank.open(own_bank.root), "me/bank").commits


@replacements
@pytest.mark.parametrize("name", first_by_default(*FILES_OF_ENTRIES))
def test_a_model_with_a_link_is_not_added(
    hub: LoopbackHub, own_bank: Bank, result: AdaptResult, tmp_path: Path, name: str, replace: Replace
) -> None:
    publish_bank(own_bank, "me/bank")
    result.save_pretrained(tmp_path / "a" / "b" / "model")
    replace(tmp_path / "a" / "b" / "model" / name)
    refuse(name, lambda: add_entries("me/bank", {"pets": tmp_path / "a" / "b" / "model"}), hub)


@pytest.mark.parametrize(
    "name", first_by_default("README.md", "config.json", "model.safetensors", "mask_scores.safetensors")
)
@replacements
def test_a_model_with_a_link_is_not_published(
    hub: LoopbackHub, result: AdaptResult, tmp_path: Path, name: str, replace: Replace
) -> None:
    result.save_pretrained(tmp_path / "a" / "b" / "model")
    replace(tmp_path / "a" / "b" / "model" / name)
    refuse(name, lambda: load_result(tmp_path / "a" / "b" / "model").push_to_hub("me/pets"), hub)
    assert not hub.has_repo("me/pets")


@pytest.mark.parametrize(
    "name", first_by_default("report.json", "preprocessor_config.json", "units.png", "accuracy.png", "report.md")
)
@replacements
def test_other_files_of_a_model_are_made_anew(
    hub: LoopbackHub, result: AdaptResult, tmp_path: Path, name: str, replace: Replace
) -> None:
    result.save_pretrained(tmp_path / "a" / "b" / "model")
    replace(tmp_path / "a" / "b" / "model" / name)
    load_result(tmp_path / "a" / "b" / "model").push_to_hub("me/pets")
    assert "model.safetensors" in hub.read_files("me/pets")
    assert SECRET.encode() not in received(hub)


def test_values_that_nobody_knows_are_not_published(hub: LoopbackHub, own_bank: Bank) -> None:
    folders = first_entry(own_bank), own_bank.base_folder
    paths = [folder / name for folder in folders for name in ("config.json", "preprocessor_config.json")]
    for path in [*paths, own_bank.root / "bank.json"]:
        values = json.loads(path.read_text()) if path.exists() else {"image_processor_type": "BitImageProcessor"}
        values |= {SECRET: SECRET, "_name_or_path": SECRET, "processor_class": SECRET}
        for name in ("pretrained_cfg", "preprocessing", "base_model", "defaults"):
            if name in values:
                values[name] |= {"file": SECRET, "hf_hub_id": f"local-dir:/{SECRET}", "origin_url": SECRET}
        if "base_model" in values:
            values["base_model"]["repo_id"] = f"/home/{SECRET}/base"
        for mask in values.get("masks", {}).values():
            mask["note"] = SECRET
        path.write_text(json.dumps(values))
    publish_bank(Bank.open(own_bank.root), "me/bank")
    assert files_with_secret(hub, "me/bank") == []
    assert SECRET.encode() not in received(hub)
    assert validate_bank(Bank.from_hub("me/bank")) == []


TOKENS = [f"{kind}_{20 * 'a'}" for kind in ("hf", "api_org", "oidc")]


@pytest.mark.parametrize("text", [f"/home/{SECRET}/key", f"token={SECRET}", f"http://{SECRET}/x", *TOKENS])
def test_texts_that_are_no_words_are_not_published(text: str, hub: LoopbackHub, own_bank: Bank) -> None:
    """Under keys that the library knows, at any depth."""
    entry, base = first_entry(own_bank), own_bank.base_folder
    for folder in (entry, base):
        processor = {"image_processor_type": text, "size": {"height": 32, text: 1}, "image_mean": text}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    for path, changes in (
        (base / "config.json", {"label_descriptions": {"x": text}, "pretrained_cfg": {"tag": text, "license": text}}),
        (own_bank.root / "bank.json", {"hf_metaprune_version": text, "base_model": {"revision": text}}),
        (entry / "config.json", {"base_model": {"revision": text}}),
    ):
        values = json.loads(path.read_text())
        for key, value in changes.items():
            values[key] = values[key] | value if isinstance(values.get(key), dict) else value
        path.write_text(json.dumps(values))
    publish_bank(Bank.open(own_bank.root), "me/bank")
    assert text.encode() not in received(hub)
    assert validate_bank(Bank.from_hub("me/bank")) == []


def test_a_name_that_is_a_path_is_published_without_it(hub: LoopbackHub, own_bank: Bank) -> None:
    values = json.loads((own_bank.root / "bank.json").read_text())
    (own_bank.root / "bank.json").write_text(json.dumps(values | {"name": f"/home/{SECRET}/pets"}))
    publish_bank(Bank.open(own_bank.root), "me/bank")
    assert SECRET.encode() not in received(hub)
    assert Bank.from_hub("me/bank").name == "pets"


@pytest.mark.parametrize("key", ["metrics", "method"])
def test_an_entry_or_model_with_a_path_in_its_config_is_refused(
    key: str, hub: LoopbackHub, own_bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    publish_bank(own_bank, "me/bank")
    folder = result.save_pretrained(tmp_path / "model")
    values = json.loads((folder / "config.json").read_text())
    values[key] = f"/home/{SECRET}" if key == "method" else {"source": [f"/home/{SECRET}"]}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(MetaPruneError, match="might be a path"):
        add_entries("me/bank", {"pets": folder})
    with pytest.raises(MetaPruneError, match="might be a path"):
        load_result(folder).push_to_hub("me/pets")
    assert SECRET.encode() not in received(hub)


def test_metadata_in_a_file_of_weights_is_not_published(
    hub: LoopbackHub, own_bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    publish_bank(own_bank, "me/bank")
    path = result.save_pretrained(tmp_path / "model") / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {"note": SECRET})
    with pytest.raises(MetaPruneError, match="metadata that nobody knows .note."):
        add_entries("me/bank", {"pets": tmp_path / "model"})
    load_result(tmp_path / "model").push_to_hub("me/pets")  # it is written anew
    assert SECRET.encode() not in received(hub)


def test_what_a_stranger_wrote_into_a_report_is_not_published(
    hub: LoopbackHub, result: AdaptResult, tmp_path: Path
) -> None:
    result.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "report.json"
    values = json.loads(path.read_text())
    for name in ("options", "given", "versions"):
        values[name][SECRET] = SECRET
    values["bank"] = {"name": f"/home/{SECRET}/bank", "root": SECRET}
    values["source"] = f"/home/{SECRET}/photos"
    values["neighbors"][0]["folder"] = values["notes"] = [SECRET]
    path.write_text(json.dumps(values))
    load_result(tmp_path / "model").push_to_hub("me/pets")
    assert json.loads(hub.read_files("me/pets")["report.json"])["bank"] == {"name": "bank"}
    assert SECRET.encode() not in received(hub)


PLACES = (
    *(
        "options.by",
        "given.by",
        "evaluated_on",
        "head",
        "strategy",
        "machine",
        "device",
        "bank.repo_id",
        "bank.revision",
    ),
    *("neighbors.path", "neighbors.id", "neighbors.masks", "neighbors.repo_id"),
)
NAMED = ("baselines", "seconds", "accuracy_per_class", "vote_agreement", "baseline_flops", "versions")


def test_no_path_in_any_text_of_a_report_is_published(hub: LoopbackHub, result: AdaptResult, tmp_path: Path) -> None:
    result.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "report.json"
    values, text = json.loads(path.read_text()), f"see /home/ada/{SECRET}"
    for place in PLACES:
        name, _, key = place.partition(".")
        if not key:
            values[name] = text
        else:
            (values[name][0] if name == "neighbors" else values[name])[key] = text
    for name in NAMED:
        values[name][text] = {"0": 0.5} if name == "baselines" else {"1": 1} if name == "vote_agreement" else 1
    path.write_text(json.dumps(values))
    load_result(tmp_path / "model").push_to_hub("me/pets")
    assert SECRET.encode() not in received(hub)
    assert json.loads(hub.read_files("me/pets")["report.json"])["neighbors"][0]["labels"]


def test_the_path_of_a_bank_without_a_name_is_not_published(
    hub: LoopbackHub, own_bank: Bank, task_data: TaskData
) -> None:
    values = json.loads((own_bank.root / "bank.json").read_text())
    del values["name"]
    (own_bank.root / "bank.json").write_text(json.dumps(values))
    options = {"steps": 1, "batch_size": 8, "eval_steps": (0,)}
    MetaPruner(Bank.open(own_bank.root)).adapt(task_data.select((0, 1)), **options).push_to_hub("me/pets")
    assert str(own_bank.root.parent).encode() not in received(hub)


def test_a_copy_of_a_bank_takes_no_links_along(own_bank: Bank, tmp_path: Path) -> None:
    entry = next(iter(own_bank))
    link_to_secret(entry.folder / "preprocessor_config.json")
    with pytest.raises(MetaPruneError, match="is a symbolic link"):
        copy_subset(own_bank, tmp_path / "copy", [entry.id])
    assert not (tmp_path / "copy").exists()
    shutil.rmtree(tmp_path / "private")


def test_a_bank_in_the_cache_is_opened_and_published_like_another(hub: LoopbackHub, own_bank: Bank) -> None:
    """Which is made of links."""
    from huggingface_hub import snapshot_download

    publish_bank(own_bank, "me/bank")
    folder = Path(snapshot_download("me/bank"))
    assert (folder / "bank.json").is_symlink()
    cached = Bank.open(folder)
    assert validate_bank(cached) == []
    publish_bank(cached, "me/copy")
    assert hub.read_files("me/copy").keys() == hub.read_files("me/bank").keys()


@pytest.mark.parametrize("name", ["base", "tasks"])
def test_a_link_that_comes_after_the_check_is_not_sent(
    hub: LoopbackHub, own_bank: Bank, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """huggingface_hub opens files long after they were checked."""
    add = commits._tensor_addition

    def add_and_swap(folder: Path, path: str, *values: str) -> object:
        operation = add(folder, path, *values)
        if path.startswith(name):
            link_to_secret(folder / values[0])
        return operation

    monkeypatch.setattr(commits, "_tensor_addition", add_and_swap)
    assert publish_bank(own_bank, "me/bank").commits
    assert SECRET.encode() not in received(hub)
    Bank.from_hub("me/bank")[first(own_bank).id].verify()


@pytest.mark.parametrize("key", ["labels", "masks_digest"])
def test_metadata_in_a_file_of_scores_is_not_published(tmp_path: Path, key: str) -> None:
    path = tmp_path / "mask_scores.safetensors"
    save_file({"conv1": np.ones(4, np.float32)}, path, {"format": "np", "base_model_sha256": "0" * 64})
    check_public_header(path, path.read_bytes())
    save_file({"conv1": np.ones(4, np.float32)}, path, {key: SECRET})
    with pytest.raises(FormatError, match=f"metadata that nobody knows .{key}."):
        check_public_header(path, path.read_bytes())


def test_a_path_in_the_place_of_a_mask_is_not_published(hub: LoopbackHub, result: AdaptResult, tmp_path: Path) -> None:
    path = result.save_pretrained(tmp_path / "model") / "report.json"
    values = json.loads(path.read_text())
    masks = [neighbor["masks"] for neighbor in values["neighbors"]]
    values["neighbors"].append(values["neighbors"][0] | {"masks": f"/home/ada/{SECRET}==".replace("_", "x")})
    path.write_text(json.dumps(values))
    load_result(tmp_path / "model").push_to_hub("me/pets")
    published = json.loads(hub.read_files("me/pets")["report.json"])["neighbors"]
    assert [neighbor.get("masks") for neighbor in published] == [*masks, None]
    assert b"home" not in received(hub)


def test_an_id_with_a_token_is_not_published(
    hub: LoopbackHub, own_bank: Bank, result: AdaptResult, tmp_path: Path
) -> None:
    publish_bank(own_bank, "me/bank")
    result.save_pretrained(tmp_path / "model")
    with pytest.raises(MetaPruneError, match=r"might be a path, an address or a token"):
        add_entries("me/bank", {"hf_" + "a1" * 17: tmp_path / "model"})
    assert len(hub.history("me/bank")) == 2  # of which the Hub makes the first
