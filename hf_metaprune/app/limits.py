"""Limits of what visitors may send."""

from __future__ import annotations

from dataclasses import dataclass


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
    pixels: int = 60_000_000
    """Pixels per photo."""
    members: int = 5000
    """Files per zip."""
    seconds: float = 60.0
    """Seconds per upload."""

    @property
    def large_file_cause(self) -> str:
        """Why a file of more than `file_bytes` is refused."""
        return f"larger than {self.file_bytes // 1_000_000} MB"
