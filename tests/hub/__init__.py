"""A Hugging Face Hub on loopback, which the real client talks to over HTTP.

How to use it in a test: take the fixture `hub`, and call the library as a user does, without endpoint or token.

    from tests.hub import Call, Drop, LoopbackHub, Status

    def test_a_bank_is_published(hub: LoopbackHub):         # a Hub of this test's own, on free ports
        publish(bank, "me/bank")                            # HfApi() inside finds the Hub; "me" is logged in
        assert "index.json" in hub.read_files("me/bank")
        hub.faults.add(Status(500), method="HEAD", path="index.json", times=2)
        hub.reset_log()
        fetch("me/bank")                                    # retries take no time
        assert hub.count("HEAD", path="index.json") == 3

A folder of tests gets the fixture by `from tests.hub.fixtures import hub` in its conftest.py. It does two things that
belong together (`point_at`): it sets the environment, for processes that the test starts, and sets anew what the client
made of the environment when it was imported: `huggingface_hub.constants` (endpoint, offline, cache, token file) and the
endpoint of `hf_api.api`. The client looks all of these up at each call, so that no import order matters, the rest of
the tests stays offline, and each test has a fresh Hub and a fresh cache. What does not work in a process that
has imported the client: setting the environment alone. `run_python` runs code in a process of its own instead.

The client pauses up to 23 s between attempts on 408, 429, 5xx and lost connections, and a second more than
`Retry-After` says; `quick_retries`, part of the fixture, makes the pauses take no time and lists them.

What the Hub offers:

- `endpoint`, and `storage_endpoint`, the second port, which has the bodies of LFS files, and to which no token may go.
- `add_user(name, token=None, role="write")`, `add_org(name, members)`, `grant(repo_id, user)` for gated repositories.
- `put_files`, `put_folder`, `read_files`, `commit`, `history`, `repo`: everything without HTTP, from any thread.
- `requests`, `seen(method, path, host, status)`, `count(...)`, `bytes_in`, `bytes_out`, `reset_log()`.
- `faults.add(action, method=, path=, host=, times=1, skip=0)` and `faults.clear()`. Actions: `Status`, `Drop` (before
  or after the work), `CutShort`, `WrongLength`, `Content`, `Header`, `Redirect`, `Call` (before the answer), `Wait`.
- `page_size`, `lfs_threshold`, `pins`, see `LoopbackHub`. A bug in the Hub is a 501, and fails the test at its end.

It was made from the client's side and from what is known of the Hub; its tags, its limits and its messages are
approximations. There is no Xet, no multipart upload, no copying between repositories, no discussion but pull requests.
"""

from tests.hub.client import environment, point_at, quick_retries, run_python
from tests.hub.faults import Action, Call, Content, CutShort, Drop, Fault, Header, Redirect, Status, Wait, WrongLength
from tests.hub.server import LoopbackHub
from tests.hub.store import Blob, Commit, Repo
from tests.hub.wire import Seen

__all__ = [
    "Action",
    "Blob",
    "Call",
    "Commit",
    "Content",
    "CutShort",
    "Drop",
    "Fault",
    "Header",
    "LoopbackHub",
    "Redirect",
    "Repo",
    "Seen",
    "Status",
    "Wait",
    "WrongLength",
    "environment",
    "point_at",
    "quick_retries",
    "run_python",
]
