"""Fixtures of a loopback Hub; a conftest.py imports those it wants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.client import point_at, quick_retries
from tests.hub.server import LoopbackHub

TOKEN = "hf_token_of_me"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """A Hub of this test's own, used by the client in this process; user "me" is logged in and retries at once."""
    from huggingface_hub import close_session

    with LoopbackHub() as hub:
        hub.add_user("me", token=TOKEN)
        point_at(hub, monkeypatch, tmp_path / "hf_home", TOKEN)
        quick_retries(monkeypatch)
        yield hub
        close_session()
