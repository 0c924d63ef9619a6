"""The steps that `bench_hub.py` measures, in a process of their own: names and options come in, facts go out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.data.images import ImageSet
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.data.synsets import wordnet
from hf_metaprune.data.task import Task
from hf_metaprune.similarity import Query, get_similarity
from tests.hub.client import point_at

Facts = dict[str, Any]
TINY = {"steps": 1, "eval_steps": (0,), "precision": "fp32"}


def publish(bank: str, repo_id: str) -> Facts:
    """Publish a bank from its folder."""
    publication = Bank.open(bank).push_to_hub(repo_id)
    return {"commits": len(publication.commits), "added": len(publication.added)}


def rank(repo_id: str, labels: list[str], synsets: list[str | None]) -> Facts:
    """Open a published bank and rank all of its entries by WordNet, which looks at no image."""
    bank = MetaPruner.from_hub(repo_id).bank
    images = torch.empty(0, 3, 1, 1, dtype=torch.uint8), torch.empty(0, dtype=torch.long)
    no_images = ImageSet(*images, Preprocessing((3, 1, 1), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0))
    query = Query(Task(tuple(labels), tuple(synsets)), no_images, torch.device("cpu"))
    neighbors = get_similarity("wordnet").rank(query, list(bank))
    return {"entries": len(neighbors), "nearest": neighbors[0].entry.id}


def adapt(repo_id: str, cache_dir: str, data: str, neighbors: int, to: str | None = None) -> Facts:
    """Adapt from a published bank by WordNet, with one step of training; publish the model if told where to."""
    pruner = MetaPruner.from_hub(repo_id, cache_dir=cache_dir)
    result = pruner.adapt(data, by="wordnet", neighbors=neighbors, **TINY)
    if to is not None:
        result.push_to_hub(to)
    return {"voters": [neighbor["path"] for neighbor in result.report.neighbors]}


def search(base_model: str, cache_dir: str) -> Facts:
    """Search the commons."""
    bank = Bank.from_search(base_model, cache_dir=cache_dir)
    return {"models": len(bank), "left_out": len(bank.skip_reasons)}


STEPS: dict[str, Callable[..., Facts]] = {"publish": publish, "rank": rank, "adapt": adapt, "search": search}


def peak_mb() -> float | None:
    """Most memory this process has held so far; None where the system does not say (getrusage counts the parent's)."""
    status = Path("/proc/self/status")
    match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(match[1]) * 1024 / 1e6 if match else None


def answer(requests: Connection, endpoint: str, home: Path, token: str) -> None:
    """Run the steps that come in until there are no more; what is needed is loaded before any clock runs.

    Args:
        requests: gives dicts of options, with the name of the step; gets a dict of facts for each.
        endpoint: the Hub's address.
        home: folder of the client's cache.
        token: the account's.
    """
    point_at(SimpleNamespace(endpoint=endpoint), pytest.MonkeyPatch(), home, token)  # type: ignore[arg-type]
    while True:
        try:
            options = requests.recv()
        except EOFError:
            return
        step = STEPS[options.pop("step")]
        if step in (rank, adapt):
            wordnet()
        before, began, cpu = peak_mb(), time.perf_counter(), time.process_time()
        facts = step(**options)
        times = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        requests.send(facts | times | {"peak_mb": peak_mb(), "peak_mb_before": before})
