"""How much strangers may send."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UploadLimits:
    """How much one visitor may send."""

    photos: int = 1000
    classes: int = 50
    label_length: int = 60
    file_bytes: int = 25_000_000
    total_bytes: int = 500_000_000
    """Of all files together, as they are after unpacking."""
    pixels: int = 60_000_000
    """Of one photo."""
    members: int = 5000
    """Of one zip."""
    seconds: float = 60.0
    """For one upload."""
