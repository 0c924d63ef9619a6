"""No file of the server or of another visitor is given out, and an upload is gone when its pixels are taken."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from hf_metaprune.task import TaskData

from .conftest import Served, Visit, write_photos


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    "prefix", ["gradio_api/file=", "file=", "gradio_api/file/", "static/", "assets/", "gradio_api/stream/"]
)
def test_files_of_the_server_are_not_given_out(served: Served, bank_folder: Path, prefix: str) -> None:
    here = Path(__file__).resolve()
    for path in (
        "/etc/passwd",
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        str(here),
        str(bank_folder / "index.parquet"),
        str(Path.cwd() / "pyproject.toml"),
        "pyproject.toml",
        "file:///etc/passwd",
    ):
        assert status(served.url + prefix + quote(path, safe="/%:")) in (400, 403, 404, 405), path


def test_a_visitors_files_are_their_own_and_go_with_them(
    visit: Callable[..., Visit], served: Served, task_data: TaskData, tmp_path: Path
) -> None:
    one = visit()
    files = write_photos(tmp_path, task_data, (0,))
    (photos,) = files.values()
    one.add("ant", photos, "Took 12 photos into")
    one.take_example()
    one.set_steps(20)
    one.make()
    one.finish()
    folder = served.visitors_files()[-1]
    assert (folder / "model.zip").exists()
    assert status(f"{served.url}gradio_api/file={folder}/model/config.json") in (403, 404)
    content = {photo.read_bytes() for photo in photos}
    assert [path for path in served.files.rglob("*.png") if path.read_bytes() in content] == []
