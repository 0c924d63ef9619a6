"""Files that would cost too much are refused before anything is made of them; what they cost is a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_metaprune.errors import MetaPruneError
from scripts.bench_hostile import CASES

READ = frozenset(
    {"report: losses", "report: confusion", "report: unknown fields", "report: a drawn confusion"}
    | {
        "report: long names of layers",
        "report: many votes",
        "report: as many labels of markup as may be",
        "report: options as long as may be",
    }
    | {
        "data set: one image as often as may be",
        "data set: two images of 50 million pixels",
        "data set: two images of 50 million pixels with alpha",
        "data set: images with texts of 60 MB",
        "data set: a column beside the images of 81 million pixels each",
        "data set: 40 files with names that fit each other as patterns",
        "data set: 10,000,000 rows in a file of another suffix",
        "data set: saved, a license of as many lists as may be",
        "data set: a JPEG of 100 scans",
        "data set: a WebP of 16 million pixels",
        "data set: a PNG of overlapping EXIF data",
        "data set: a thin PNG of 40 million pixels",
        "data set: a thin PNG of 16 million pixels",
        "data set: a progressive JPEG of 49 million pixels",
        "data set: a GIF of 49 million pixels",
        "data set: a TIFF of 49 million pixels of CIELAB",
    }
    | {"bank.json: unknown keys"}
    | {"index: metrics of 60 MB", "index: 18,500 rows that are sound", "index: 14,000 rows that know a class of 200"}
    | {"card: 24,000 keys", "card: 24,000 tags", "card: a block of 12,000 keys", "card: a text of 1 MB"}
    | {"card: an end that never comes", "card: a long text", "nothing hostile"}
    | {"base: a ConvNeXt of as many blocks as can be"}
)
"""Cases that are read, because they cost little; `bank validate` lists those of entries and bases as problems."""
REFUSED = [name for name in CASES if name not in READ and not name.startswith(("entry: ", "base/"))]


@pytest.mark.parametrize(
    "name",
    [n if n.startswith(("report", "card", "data set")) else pytest.param(n, marks=pytest.mark.slow) for n in REFUSED],
)
def test_what_would_cost_too_much_is_refused(name: str, tmp_path: Path) -> None:
    path, read = CASES[name](tmp_path)
    with pytest.raises(
        MetaPruneError,
        match=r"which is not read|a file twice|too many|more than|at most|too large|sides 8 to|cannot be read|"
        "has no classifier|has shape|missing or",
    ):
        read()
    assert path.exists()
