"""At least 600 altered files: each is read, or refused by a `MetaPruneError`; and nothing else happens."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from hf_metaprune.errors import FormatError
from tests.fuzz.corpus import Corpus
from tests.fuzz.targets import TARGETS, Fuzzer
from tests.fuzz.watch import MB, CaseFailure, Watch, little_memory

CASES = {
    "bank.json": 80,
    "index": 70,
    "card": 50,
    "header": 100,
    "listed": 100,
    "entry config": 45,
    "entry weights": 40,
    "base": 70,
    "transformers base": 35,
    "trunk": 40,
    "data set": 100,
    "picture": 40,
    "scores": 40,
    "report": 100,
    "page": 10,
    "model": 15,
    "from_pretrained": 15,
    "repair": 10,
    "remove": 10,
}


def test_there_are_enough_cases() -> None:
    assert set(CASES) == set(TARGETS)
    assert sum(CASES.values()) >= 600


SOME = [(name, 0.2) for name in CASES if CASES[name] >= 30]


@pytest.mark.parametrize(("name", "share"), [*SOME, *(pytest.param(n, 1, marks=pytest.mark.slow) for n in CASES)])
def test_nothing_but_our_errors_comes_out(name: str, share: float, corpus: Corpus, tmp_path: Path) -> None:
    fuzzer, count = Fuzzer(TARGETS[name], corpus, tmp_path), int(share * CASES[name])
    with little_memory():
        for number in range(count):
            fuzzer.case(Random(f"{name} {number}"))
    if name not in ("card", "listed", "remove"):  # which leave out, or leave alone, what is bad
        assert fuzzer.refused > 0
        assert fuzzer.refused < fuzzer.cases or share < 1, fuzzer.last_refusal  # a few may all be bad


def test_sound_files_are_read(corpus: Corpus, tmp_path: Path) -> None:
    copy = corpus.copy(tmp_path / "files")
    for target in TARGETS.values():
        writes = copy.root / target.writes if target.writes else None
        assert target.name == "remove" or not Watch((), writes).run(lambda t=target: t.read(copy), tmp_path), (
            target.name
        )


def do_write(folder: Path) -> None:
    (folder / "outside").write_text("x")


def do_hide_a_write(folder: Path) -> None:
    os.utime(folder / "there", (0, 0))


def do_allocate(_: Path) -> None:
    try:
        bytearray(10 << 30)
    except MemoryError as error:
        raise FormatError("10 GB do not fit") from error


def do_fill(_: Path) -> None:
    bytearray(b"x") * (600 * MB)


def do_start(_: Path) -> None:
    os.system("true")


def do_fail(_: Path) -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (do_write, "open"),
        (do_hide_a_write, "changed"),
        (do_allocate, "more memory"),
        (do_fill, r"took \d+ MB"),
        (do_start, "os.system"),
        (do_fail, "KeyError"),
    ],
)
def test_what_reading_may_not_do_is_seen(do, message: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    with little_memory(), pytest.raises(CaseFailure, match=message):
        Watch().run(lambda: do(tmp_path), tmp_path)
