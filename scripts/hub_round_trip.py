#!/usr/bin/env python
"""The whole way on the real Hub, in your own namespace: a bank, a model made from it, and that model's vote.

Publishes the demo bank, adapts from it in a fresh cache, publishes the model, has the Hub validate its card, finds the
model by a search, and lets it vote for another task. The two repos are private, and deleted in the end. Needs a token
with write access: `hf auth login`, or HF_TOKEN.

    uv run scripts/hub_round_trip.py
"""

from __future__ import annotations

import secrets
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.data.loading import read_task_data
from hf_metaprune.errors import HubError, MetaPruneError
from hf_metaprune.hub.client import hub_api, hub_errors

SPACE = Path(__file__).resolve().parents[1] / "space"
POLL = 5.0  # seconds


def search(bank: str, owner: str, repo_id: str, patience: float, cache: str) -> MetaPruner:
    """A search that has found the model, and uses no other; the Hub may list a new one only after a while."""
    ends = time.monotonic() + patience
    while True:
        commons = MetaPruner.from_search(bank, author=owner, allow=(repo_id,), cache_dir=cache)
        if any(entry.repo_id == repo_id for entry in commons.bank):
            return commons
        if time.monotonic() >= ends:
            raise HubError(
                f"the Hub does not list {repo_id} after {patience:.0f} s; left out: {commons.bank.skip_reasons}"
            )
        time.sleep(POLL)


def round_trip(bank: Path, data: Path, owner: str, names: tuple[str, str], steps: int, patience: float) -> None:
    """Publish, read, adapt, publish, search, adapt."""
    from huggingface_hub import ModelCard

    bank_id, model_id = (f"{owner}/{name}" for name in names)
    with tempfile.TemporaryDirectory() as cache:
        publication = Bank.open(bank).push_to_hub(bank_id, private=True)
        print(f"1. published {len(publication.added)} entries in {len(publication.commits)} commits: {publication.url}")
        pruner = MetaPruner.from_hub(bank_id, cache_dir=cache)
        task = read_task_data(str(data), pruner.bank.base.preprocessing)
        result = pruner.adapt(task, steps=steps)
        print(f"2. adapted from it: {result.report.accuracy:.1%} on {result.report.test_images} images")
        url = result.push_to_hub(model_id, private=True)
        card = ModelCard.load(model_id)
        card.validate()
        print(f"3. published the model, and the Hub finds its card valid: {url}")
        commons = search(bank_id, owner, model_id, patience, cache)
        print("4. a search finds it")
        again = commons.adapt(task.select((0, 1, 2)), steps=steps)
        voters = ", ".join(f"{n['repo_id']} at {n['revision'][:7]}" for n in again.report.neighbors)
        print(f"5. voted for by {voters}: {again.report.accuracy:.1%} on {again.report.test_images} images")


def main(
    namespace: Annotated[str | None, typer.Option(help="Owner of the repos; you, if left out.")] = None,
    bank: Annotated[Path, typer.Option(help="The bank.")] = SPACE / "demo_bank",
    data: Annotated[Path, typer.Option(help="The task's images.")] = SPACE / "examples" / "unseen_five",
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 20,
    patience: Annotated[float, typer.Option(help="Seconds to wait until the Hub lists the model.")] = 300,
    keep: Annotated[bool, typer.Option(help="Do not delete the repos in the end.")] = False,
) -> None:
    """Do it, and say what happened."""
    api = hub_api()
    with hub_errors("the Hub", "log in to"):
        owner = namespace or api.whoami()["name"]
    mark = secrets.token_hex(3)
    names = f"metaprune-try-bank-{mark}", f"metaprune-try-model-{mark}"
    try:
        round_trip(bank, data, owner, names, steps, patience)
    finally:
        for name in names if not keep else ():
            # whoever may not write has heard so already
            with suppress(HubError), hub_errors(f"{owner}/{name}", "delete"):
                api.delete_repo(f"{owner}/{name}", missing_ok=True)


if __name__ == "__main__":
    try:
        typer.run(main)
    except MetaPruneError as error:
        raise SystemExit(f"error: {error}") from None
