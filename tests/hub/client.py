"""Pointing the real client at a loopback Hub: in this process, and in others."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import forked
from tests.hub.server import LoopbackHub

# The HTTP library of the client, which changed with its version 2
httpx: Any = importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")

__all__ = ["environment", "httpx", "point_at", "quick_retries", "run_command_at", "run_python"]
REPO = Path(__file__).resolve().parents[2]


def environment(hub: LoopbackHub, home: Path, token: str | None = None) -> dict[str, str]:
    """The variables under which a fresh process uses the loopback Hub; the token is left out unless told."""
    variables = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    return variables | ({"HF_TOKEN": token} if token else {})


def point_at(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, home: Path, token: str | None = None) -> None:
    """Make the client in this process, and processes started from it, use a loopback Hub and a cache of its own.

    The client read its environment when it was first imported, so what it made of it is set as well. All of its calls
    look these names up when they are made; `huggingface_hub.hf_api.api`, behind the plain functions such as
    `huggingface_hub.create_repo`, keeps an endpoint of its own.
    """
    from huggingface_hub import close_session, constants, hf_api

    for name, value in environment(hub, home, token).items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if token is None else ():
        monkeypatch.delenv(name, raising=False)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    values: dict[str, object] = {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_URL_HOSTS": frozenset({"127.0.0.1", "huggingface.co", "hf.co"}),
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HUGGINGFACE_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }
    for name, setting in values.items():
        monkeypatch.setattr(constants, name, setting, raising=False)
    monkeypatch.setattr(hf_api.api, "endpoint", hub.endpoint)
    if "datasets" in sys.modules:  # it copies what the client made of its environment
        _point_datasets_at(hub, monkeypatch, home)
    close_session()  # connections and proxies of before


def run_command_at(endpoint: str, home: Path, token: str, *arguments: Any) -> None:
    """Run ``hf-metaprune`` with a loopback Hub, in a process that was forked: see `forked.run_command`."""
    point_at(SimpleNamespace(endpoint=endpoint), pytest.MonkeyPatch(), home, token)  # type: ignore[arg-type]
    forked.run_command(*arguments)


def _point_datasets_at(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    from datasets import config

    values = {
        "HF_ENDPOINT": hub.endpoint,
        "HUB_DATASETS_URL": hub.endpoint + "/datasets/{repo_id}/resolve/{revision}/{path}",
        "HF_HUB_OFFLINE": False,
        "HF_DATASETS_OFFLINE": False,
        "HF_DATASETS_CACHE": home / "datasets",
    }
    for name, value in values.items():
        monkeypatch.setattr(config, name, value)


def quick_retries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make the client's pauses between attempts take no time; returns the list of pauses it asks for."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    pauses: list[float] = []
    clock = SimpleNamespace(**{name: getattr(time, name) for name in dir(time) if name[0] != "_"})
    clock.sleep = pauses.append
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", clock)
    return pauses


_NO_PAUSES = """
from huggingface_hub import file_download as _f
from huggingface_hub.utils import _http as _h
import time as _t, types as _y
_f.time = _h.time = _y.SimpleNamespace(**{**vars(_t), "sleep": lambda seconds: None})
"""


def run_python(
    hub: LoopbackHub, home: Path, code: str, *arguments: str, token: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process that uses a loopback Hub, without pauses between attempts.

    Args:
        hub: The Hub.
        home: The cache and everything else the client keeps.
        code: Python code.
        *arguments: `sys.argv[1:]` of it.
        token: Logs the process in.
        check: Fail, with what it wrote to standard error, when it fails.
    """
    variables = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    process = subprocess.run(
        [sys.executable, "-c", _NO_PAUSES + code, *arguments],
        capture_output=True,
        text=True,
        cwd=REPO,
        env=variables | environment(hub, home, token),
        timeout=300,
        check=False,
    )
    assert not check or process.returncode == 0, process.stderr
    return process
