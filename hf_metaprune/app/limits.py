"""Limits of what visitors may send."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.encoded import MAX_PIXELS


@dataclass(frozen=True)
class UploadLimits:
    """Limits of what one visitor may send."""

    photos: int = 1000
    """Photos in all classes together."""
    classes: int = 50
    """Classes."""
    label_length: int = 60
    """Characters in the name of a class."""
    file_bytes: int = 25_000_000
    """Bytes per file."""
    total_bytes: int = 500_000_000
    """Bytes of all files together, after unpacking."""
    pixels: int = MAX_PIXELS
    """Pixels per photo."""
    members: int = 5000
    """Files per zip."""
    seconds: float = 60.0
    """Seconds per upload."""

    @property
    def large_file_cause(self) -> str:
        """Why a file of more than `file_bytes` is refused."""
        return f"larger than {self.file_bytes // 1_000_000} MB"


@dataclass(frozen=True)
class ArrivalLimits:
    """Limits of what all visitors together may send, and of one request."""

    request_bytes: int = 500_000_000
    """Bytes per request."""
    server_bytes: int = 4_000_000_000
    """Bytes of all files that the server holds, and of the requests that are under way."""
    files: int = 20_000
    """Files that the server holds."""
    pixel_bytes: int = 4_000_000_000
    """Bytes of the pixels of all visitors' photos in memory."""
    requests: int = 40
    """Requests at a time."""
    silent_seconds: float = 20.0
    """Seconds until a request is cut that sends nothing."""
    bytes_per_second: float = 20_000.0
    """Bytes that a request must bring per second, on average."""
    unused_seconds: float = 300.0
    """Seconds until a file is deleted that no visitor uses."""
