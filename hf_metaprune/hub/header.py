"""What the header of a ``model.safetensors`` on the Hub says of its model, by one range request, or two.

The client has a reader of headers, which multiplies out the shape of every tensor, be they numbers or not; so a short
header can fill the memory. Here only the metadata is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..errors import FormatError, reason
from ..version import __version__
from .client import LIBRARY, hub_errors

FIRST_BYTES = 1 << 14  # the header of a ResNet-18 is shorter; of a longer one the rest is asked for
MAX_HEADER_BYTES = 2 << 20  # a ResNet-152 of 1,000 labels has 150 kB


def fetch_metadata(repo_id: str, path: str, commit: str, token: str | bool | None = None) -> dict[str, Any]:
    """The metadata in the header of a file of a repo.

    Raises:
        FormatError: there is no header that can be read. HubError: the file cannot be had.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

    def part(start: int, stop: int) -> bytes:
        sent = headers | {"range": f"bytes={start}-{stop - 1}"}
        response = http_backoff("GET", url, headers=sent, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
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
    """The metadata of a file of which `part` gives the bytes from one place up to another, or fewer at its end.

    Raises:
        FormatError: there is no header, or it is too large.
    """
    first = part(0, FIRST_BYTES)
    size = int.from_bytes(first[:8], "little")
    if len(first) < 8 or size > MAX_HEADER_BYTES:
        raise FormatError(f"it has {size} bytes, or says so; at most {MAX_HEADER_BYTES} are read")
    header = first[8 : 8 + size] if 8 + size <= len(first) else part(8, 8 + size)
    if len(header) != size:
        raise FormatError("it is cut short")
    try:
        found = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise FormatError(reason(error)) from error
    metadata = found.get("__metadata__", {}) if isinstance(found, dict) else None
    if not isinstance(metadata, dict):
        raise FormatError("it has no metadata")
    return metadata
