"""Coverage without a trace function, which makes the tests take half as long again on Python 3.11: `pytest --coverage`.

SlipCover puts a probe before each line of the library when a module is imported. Its own pytest plugin also takes
probes out again: it reads the variables of all running functions for that, which keeps alive what they have deleted.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import slipcover

from tests import REPO

NEVER = 2**31 - 1
"""Runs of a line after which its probe is taken out."""
TYPES = ["if TYPE_CHECKING:", "@abstractmethod", r"\.\.\.$"]
"""Lines that do not count."""


class Coverage:
    """A pytest plugin that probes what is imported from now on, and writes a file per process when the tests end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        library, types = str(REPO / "hf_metaprune"), str(REPO / "hf_metaprune" / "overrides.py")
        self.probes = slipcover.Slipcover(d_miss_threshold=NEVER, source=[library], omit=[types], exclude_also=TYPES)
        self.imports = slipcover.ImportManager(self.probes, slipcover.FileMatcher([library], [types]))
        self.imports.__enter__()

    def pytest_unconfigure(self) -> None:
        """Write what ran; `python -m slipcover --merge` puts the files together."""
        self.imports.__exit__()
        os.chdir(REPO)  # names of files are relative to this folder
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{uuid.uuid4().hex}.json").write_text(json.dumps(self.probes.get_coverage()))
