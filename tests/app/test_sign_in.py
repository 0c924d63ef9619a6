"""The page as a Space: visitors sign in, and find their model again; accounts and Hub are on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from hf_metaprune.app.jobs import StoppedError
from hf_metaprune.app.visitor import Visitors
from tests.hub.client import environment
from tests.hub.server import LoopbackHub

from .conftest import Served, Visit, serve, wait_until

TOKEN, OWNERS, SECRET = "hf_of_the_visitor_abcdef", "hf_of_the_owner_abcdef", "the_secret_of_the_app"
SCOPES = "openid profile manage-repos"
WHO = {"sub": "1", "name": "Ann", "preferred_username": "ann", "profile": "http://hub/ann", "picture": ""}


class Accounts(BaseHTTPRequestHandler):
    """An OpenID provider where everybody is Ann, and allows everything, unless it `says` something else, or nothing."""

    says: ClassVar[dict[str, str]] = {"code": "a_code"}

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        if where.path == "/.well-known/openid-configuration":
            here = f"http://{self.headers['Host']}"
            places = {f"{what}_endpoint": f"{here}/oauth/{what}" for what in ("authorization", "token", "userinfo")}
            return self._answer({"issuer": here, "jwks_uri": f"{here}/keys", **places})
        if not self.says:
            return self._answer({"allow": "?"})
        query = {name: values[0] for name, values in parse_qs(where.query).items()}
        back = query["redirect_uri"]
        self.send_response(302)
        more = urlencode({**self.says, "state": query["state"]})
        self.send_header("Location", f"{back}{'&' if '?' in back else '?'}{more}")
        self.end_headers()
        return None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        token = {"access_token": TOKEN, "token_type": "bearer", "scope": SCOPES, "expires_in": 3600}
        self._answer(token | {"userinfo": WHO})

    def _answer(self, content: dict[str, object]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        server.add_user("ann", token=TOKEN)
        server.add_user("owner", token=OWNERS)
        yield server


@pytest.fixture(scope="module")
def space(
    hub: LoopbackHub, bank_folder: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The page in what a Space has around it."""
    accounts = ThreadingHTTPServer(("127.0.0.1", 0), Accounts)
    threading.Thread(target=accounts.serve_forever, daemon=True).start()
    files = tmp_path_factory.mktemp("space")
    around = {
        "SYSTEM": "spaces",
        "SPACE_ID": "owner/space",
        "OAUTH_CLIENT_ID": "the_app",
        "OAUTH_CLIENT_SECRET": SECRET,
        "OAUTH_SCOPES": SCOPES,
        "OPENID_PROVIDER_URL": f"http://127.0.0.1:{accounts.server_port}",
        **environment(hub, files / "home", OWNERS),
    }
    yield from serve(files, "--bank", bank_folder, "--examples", examples, **around)
    accounts.shutdown()
    accounts.server_close()


@pytest.mark.slow
def test_who_signs_in_finds_the_model_again_and_publishes_it(
    visit: Callable[..., Visit], hub: LoopbackHub, space: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = visit(space.url)
    page = one.page
    one.take_example()
    one.set_steps(20)
    one.make()
    one.finish()
    before = one.text("#result")
    one.press("4. Publish")
    page.get_by_label("Name", exact=True).fill("ann/signed")
    one.press("Publish", exact=True)
    one.message("#published", "sign in first")
    monkeypatch.setattr(Accounts, "says", {"error": "access_denied"})
    one.press("Sign in with Hugging Face")
    page.wait_for_url("**?back=*")
    one.message("#result", "recognized")
    page.get_by_role("button", name="Sign in with Hugging Face").wait_for()
    monkeypatch.setattr(Accounts, "says", {})
    one.press("Sign in with Hugging Face")
    page.wait_for_url("**/oauth/authorization*")
    page.go_back()
    one.message("#result", "recognized")
    monkeypatch.setattr(Accounts, "says", {"code": "a_code"})
    one.press("Sign in with Hugging Face")
    page.get_by_role("button", name="Sign out (ann)").wait_for()
    one.message("#result", "recognized")
    assert one.text("#result") == before
    assert page.locator("#neighbors svg").count() == 1
    assert page.locator("#classes .class").count() == 3
    assert wait_until(lambda: "back=" not in page.url)
    assert page.get_by_label("Name", exact=True).input_value() == "ann/signed"
    one.press("Publish", exact=True)
    one.message("#published", "is published")
    assert "model.safetensors" in hub.read_files("ann/signed")
    for secret in (TOKEN, OWNERS, SECRET):
        assert secret not in space.log()
        assert secret not in page.content()
        assert not any(secret.encode() in path.read_bytes() for path in space.files.rglob("*") if path.is_file())
    one.press("Sign out (ann)")
    page.get_by_role("button", name="Sign in with Hugging Face").wait_for()
    one.message("#result", "recognized")
    assert wait_until(lambda: "back=" not in page.url)
    page.reload()
    one.message("#classes", "No photos yet.")  # a ticket is valid once
    assert wait_until(lambda: space.visitors_files() == [])
    one.complaints.clear()  # of the frame that Gradio draws around a Space: it asks the real Hub about this one


def test_what_is_written_for_one_who_is_gone_goes_too() -> None:
    one = Visitors(lambda: None).get("a")  # type: ignore[arg-type, return-value]
    with pytest.raises(StoppedError), one.writable_folder() as folder:
        one.forget()
        folder.mkdir()
        (folder / "model.onnx").touch()
    assert not folder.exists()
    with pytest.raises(StoppedError), one.writable_folder() as folder:
        one.forget()
        (folder / "model.onnx").touch()  # its folder is not there
    with one.writable_folder() as folder:
        (folder / "model.onnx").touch()
    assert (folder / "model.onnx").exists()
    one.forget()
    assert not folder.exists()


def test_a_ticket_holds_once_and_for_a_while() -> None:
    here = Visitors(lambda: None, away_seconds=900)  # type: ignore[arg-type, return-value]
    first = here.get("before")
    ticket, folder = here.issue_ticket(first), first.folder
    here.leave("before")
    assert not here.restore("another", "after")
    first.result, first.uploads = "a model", {"a.png"}  # type: ignore[assignment]
    assert here.restore(ticket, "after")
    second = here.get("after")
    assert (second.result, second.uploads) == ("a model", {"a.png"})
    assert not here.restore(ticket, "of a thief")
    ticket, folder = here.issue_ticket(second), second.folder
    assert folder.exists()
    here.away_seconds = 0
    here.leave("after")
    assert wait_until(lambda: not folder.exists())
    assert not here.restore(ticket, "after")


def test_who_knows_a_ticket_learns_nothing_of_who_uses_it() -> None:
    """As by a link that somebody else has sent: the folder is given out to all who know its address."""
    here = Visitors(lambda: SimpleNamespace(by_class={"ant": []}, unlabeled=[]))  # type: ignore[arg-type, return-value]
    stranger = here.get("stranger")
    ticket, folder, stop = here.issue_ticket(stranger), stranger.folder, stranger.stop
    stranger.result = "a model"  # type: ignore[assignment]
    assert here.restore(ticket, "lured")
    lured = here.get("lured")
    lured.result = "another model"  # type: ignore[assignment]
    assert lured.photos.by_class == {"ant": []}
    assert not folder.exists() and lured.folder != folder
    assert stop.is_set() and not lured.stop.is_set()
    assert (stranger.result, stranger.uploads, stranger._photos) == (None, set(), None)
    assert here.get("stranger") is not lured
