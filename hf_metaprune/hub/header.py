"""The metadata in the header of a ``model.safetensors`` on the Hub, read by one or two range requests.

The client's own reader of headers multiplies the entries of every shape without checking that they are numbers, so that
a short header can fill the memory. This one looks at the metadata only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import FormatError, reason
from ..files.storage import parse_json
from ..version import __version__
from .client import LIBRARY, hub_errors

FIRST_BYTES = 1 << 14  # the header of a ResNet-18 is shorter; a longer one takes a second request
MAX_HEADER_BYTES = 2 << 20  # the header of a ResNet-152 with 1,000 labels has 150 kB


def fetch_metadata(repo_id: str, path: str, commit: str, token: str | bool | None = None) -> dict[str, Any]:
    """Fetch the metadata in the header of a file on the Hub.

    Args:
        repo_id: id of the repo.
        path: path of the file in the repo.
        commit: commit of the repo.
        token: a token; None for that of the user's login or of HF_TOKEN; False for none.

    Raises:
        FormatError: the file has no header that can be read.
        HubError: the file cannot be fetched.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

    def part(start: int, stop: int) -> bytes:
        range_headers = headers | {"range": f"bytes={start}-{stop - 1}"}
        response = http_backoff("GET", url, headers=range_headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        hf_raise_for_status(response)
        return response.content

    with hub_errors(repo_id, f"read the header of {path} of"):
        url = hf_hub_url(repo_id, path, revision=commit, endpoint=constants.ENDPOINT)
        headers = build_hf_headers(token=token, library_name=LIBRARY, library_version=__version__)
        try:
            return read_metadata(part)
        except FormatError as error:
            raise FormatError(f"the header of its {path} cannot be read: {error}") from error


def read_metadata(part: Callable[[int, int], bytes]) -> dict[str, Any]:
    """Return the metadata in the header of a safetensors file.

    Args:
        part: a function that returns the file's bytes from a start up to a stop, or fewer at the file's end.

    Raises:
        FormatError: there is no header, or it is malformed or too large.
    """
    first = part(0, FIRST_BYTES)
    size = int.from_bytes(first[:8], "little")
    if len(first) < 8 or size > MAX_HEADER_BYTES:
        raise FormatError(f"it has {size} bytes, or says so; at most {MAX_HEADER_BYTES} are read")
    header = first[8 : 8 + size] if 8 + size <= len(first) else part(8, 8 + size)
    if len(header) != size:
        raise FormatError("it is cut short")
    try:
        content = parse_json(header)
    except ValueError as error:
        raise FormatError(reason(error)) from error
    metadata = content.get("__metadata__", {}) if isinstance(content, dict) else None
    if not isinstance(metadata, dict):
        raise FormatError("it has no metadata")
    return metadata
