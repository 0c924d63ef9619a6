"""Photos that come from the Hub, and a model that goes there, through the page; the Hub is on loopback."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import datasets
import pytest

from hf_metaprune.data.task import TaskData
from tests.hub.client import environment, run_command_at
from tests.hub.server import LoopbackHub

from .conftest import Served, Visit, serve_forked, wait_until

TOKEN = "hf_of_the_visitor_abcdef"
OWNERS = "hf_of_the_owner_abcdef"

Visits = Callable[..., Visit]


@pytest.fixture(scope="module")
def hub(task_data: TaskData, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """A Hub with a visitor's account, and a data set of three classes sorted by class."""
    labels = list(task_data.task.labels[:3])
    order = [i for c in range(3) for i, t in enumerate(task_data.train.targets.tolist()) if t == c][:90]
    pictures = [task_data.train.images[i].permute(1, 2, 0).numpy() for i in order]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=labels)})
    rows = {"image": pictures, "label": [int(task_data.train.targets[i]) for i in order]}
    path = tmp_path_factory.mktemp("data") / "train.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path, batch_size=10)
    with LoopbackHub() as server:
        server.add_user("ann", token=TOKEN)
        server.add_user("owner", token=OWNERS)
        server.put_files("ann/things", {"data/train.parquet": path}, repo_type="dataset")
        yield server


@pytest.fixture(scope="module")
def online(hub: LoopbackHub, bank_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page, of an owner who is logged in."""
    files = tmp_path_factory.mktemp("online")
    run = partial(run_command_at, hub.endpoint, files / "home", OWNERS)
    yield from serve_forked(files, "--bank", bank_folder, run=run, **environment(hub, files / "home", OWNERS))


@pytest.mark.slow
def test_from_a_data_set_to_a_published_model(visit: Visits, hub: LoopbackHub, online: Served) -> None:
    one = visit(online.url)
    page = one.page
    page.get_by_role("tab", name="Hub", exact=True).click()
    page.get_by_label("Data set of the Hub").fill("ann/things")
    one.press("Use this data set")
    one.message("#messages", "Added")
    assert page.locator("#classes .class").count() == 3
    assert all(request.authorization is None for request in hub.requests if "things" in request.path)
    one.press("4. Publish")
    page.get_by_label("Name", exact=True).fill("ann/mine")
    page.get_by_label("Token").fill(TOKEN)
    one.press("Publish", exact=True)
    one.message("#published", "there is no model yet")
    assert page.get_by_label("Token").input_value() == TOKEN  # it was not needed, and need not be given again
    one.set_steps(20)
    one.make()
    one.finish()
    page.get_by_label("Name", exact=True).fill("no name")
    one.press("Publish", exact=True)
    one.message("#published", "the name must be your account")
    assert page.get_by_label("Token").input_value() == TOKEN
    page.get_by_label("Name", exact=True).fill("ann/mine")
    page.get_by_label("Token").fill("")
    one.press("Publish", exact=True)
    one.message("#published", "the token is missing")
    page.get_by_label("Token").fill("hf_ä")
    one.press("Publish", exact=True)
    one.message("#published", "the token has characters that no token has")
    page.get_by_label("Token").fill("hf_a_wrong_one_abc")
    one.press("Publish", exact=True)
    one.message("#published", "the Hub does not accept this token for the account “ann”")
    page.get_by_label("Token").fill(TOKEN)
    one.press("Publish", exact=True)
    one.message("#published", "is published")
    assert page.locator("#published a").get_attribute("href") == f"{hub.endpoint}/ann/mine"
    assert {"README.md", "config.json", "model.safetensors"} <= set(hub.read_files("ann/mine"))
    assert wait_until(lambda: page.get_by_label("Token").input_value() == "")
    for secret in (TOKEN, OWNERS):
        assert secret not in online.log()
        assert secret not in page.content()
        assert not any(secret.encode() in path.read_bytes() for path in online.files.rglob("*") if path.is_file())
    storage = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert TOKEN not in storage
    assert page.evaluate("indexedDB.databases().then(databases => databases.length)") == 0


@pytest.mark.slow
def test_a_data_set_that_is_not_there_is_said(visit: Visits, online: Served) -> None:
    one = visit(online.url)
    one.page.get_by_role("tab", name="Hub", exact=True).click()
    for name, says in (("ann/nothing", "no public data set ann/nothing"), ("../../etc", "no id of a data set")):
        one.page.get_by_label("Data set of the Hub").fill(name)
        one.press("Use this data set")
        one.message("#messages", says)


@pytest.mark.slow
def test_a_server_that_is_ended_leaves_no_files(online: Served) -> None:
    assert len(list(online.files.glob("hf-metaprune-*"))) == 1
    os.kill(online.process, signal.SIGTERM)
    assert wait_until(lambda: list(online.files.glob("hf-metaprune-*")) == [])
    assert "Traceback" not in online.log()
