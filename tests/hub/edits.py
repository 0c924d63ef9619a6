"""What strangers, and the tests, do to repos on the loopback Hub; and a quick adaptation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.hub import LoopbackHub

TINY = {"steps": 1, "batch_size": 8, "eval_steps": (0,), "precision": "fp32", "by": "leep"}


def put_index(hub: LoopbackHub, tmp_path: Path, change: Any) -> None:
    """Change the rows of the published index as a pull request might."""
    path = tmp_path / "index.parquet"
    path.write_bytes(hub.read_files("me/bank")["index.parquet"])
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    hub.put_files("me/bank", {"index.parquet": path.read_bytes()})


def everything(hub: LoopbackHub, repo_id: str) -> str:
    return b"\n".join(hub.read_files(repo_id).values()).decode("latin-1")


def hub_cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def lose(hub: LoopbackHub, *paths: str) -> None:
    from huggingface_hub import CommitOperationDelete, HfApi

    HfApi().create_commit("me/bank", [CommitOperationDelete(path) for path in paths], commit_message="oh")
