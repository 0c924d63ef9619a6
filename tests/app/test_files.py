"""No file of the server or of another visitor is given out, and an upload is gone when its pixels are taken."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from hf_metaprune.data.task import TaskData

from .conftest import Served, Visit, wait_until, write_photos


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_visitors_files_are_deleted_when_they_are_read_and_at_the_latest_when_the_page_is_closed(
    visit: Callable[..., Visit], served: Served, task_data: TaskData, tmp_path: Path
) -> None:
    one = visit()
    class_photos, more_photos, waiting_photos, query_photos = write_photos(tmp_path, task_data, (0, 1, 2, 4)).values()

    def still_there(photos: list[Path]) -> list[Path]:
        content = {photo.read_bytes() for photo in photos}
        return [path for path in served.files.rglob("*.png") if path.read_bytes() in content]

    for name, photos in (("ant", class_photos), ("bee", more_photos)):  # the first event makes the fields anew
        one.add(name, photos, "Added 12 photos to")
        assert still_there(photos) == []
    assert list(served.files.rglob("tmp*")) == []  # Gradio would make one for each
    one.take_example()
    one.set_steps(20)
    one.make()
    one.finish()
    one.page.locator("#photo input[type=file]").set_input_files(str(query_photos[0]))
    one.message("#answer", "%")
    one.page.get_by_role("tab", name="My photos").click()
    one.page.locator("#files input[type=file]").set_input_files(str(waiting_photos[0]))  # and not added
    one.page.locator(f'td[aria-label="{waiting_photos[0].name}"]').wait_for()
    uploads = still_there([waiting_photos[0], query_photos[0]])
    assert len(uploads) == 2
    folder = served.visitors_files()[-1]
    given_out = [*uploads, folder / "model.zip", folder / "model" / "report.html"]
    assert [status(f"{served.url}gradio_api/file={path}") for path in given_out] == [200] * 4
    assert len(list(served.files.rglob("model.zip"))) == len(served.visitors_files())  # Gradio has no copies
    one.page.close()
    assert wait_until(lambda: not any(path.exists() for path in given_out))
    assert [status(f"{served.url}gradio_api/file={path}") for path in given_out] == [403] * 4
