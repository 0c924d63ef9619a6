#!/usr/bin/env python
"""Alter real files at random and have them read, for as long as one likes; what fails is kept.

uv run --extra dev scripts/fuzz.py --minutes 10 --seed 1
uv run --extra dev scripts/fuzz.py --minutes 10 --seed 1 --state fuzz.json  # and again, to go on
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from random import Random
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests are no installed package

from hf_metaprune.files.storage import write_json
from tests.fuzz.corpus import Corpus, make_all
from tests.fuzz.targets import TARGETS, Fuzzer
from tests.fuzz.watch import CaseFailure, little_memory

BATCH = {"page": 10, "trunk": 30, "repair": 3, "remove": 10, "model": 20, "from_pretrained": 20, "base": 30}
"""Cases of one target before it is the turn of the next; 100 if not told."""

MOST_SECONDS = 2.0
"""Most seconds of CPU for reading or refusing one file."""

Failures = list[tuple[str, str, bytes]]


def run_batch(corpus: Path, name: str, seeds: range, folder: Path) -> Failures:
    """Failures of some cases of one target: the seed's name, what happened, and the altered file."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    cases: Failures = []
    with tempfile.TemporaryDirectory(dir=folder) as work, little_memory():
        fuzzer = Fuzzer(TARGETS[name], Corpus(corpus), Path(work), MOST_SECONDS)
        for seed in seeds:
            try:
                fuzzer.case(Random(f"{name}:{seed}"))
            except CaseFailure as failure:
                cases.append((f"{name}-{seed}-{Path(fuzzer.altered[0]).name}", str(failure), fuzzer.altered[1]))
    return cases


def new_pool() -> ProcessPoolExecutor:
    """One process beside this one, which a fault of native code may end."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Another seed, other cases.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the files that fail.")] = Path("fuzz-failures"),
    state: Annotated[Path | None, typer.Option(help="File that keeps how far it came, for another run.")] = None,
    only: Annotated[str, typer.Option(help="Only this target.")] = "",
) -> None:
    """Print how many cases were tried; exit 1 if any failed."""
    names, counts, failures, turn = [only] if only else list(TARGETS), Counter[str](), 0, 0
    if state is not None and state.exists():
        values = json.loads(state.read_text())
        if (values["seed"], values["names"]) != (seed, names):
            raise typer.BadParameter(f"--state: {state} is of another seed or of other targets")
        counts, failures, turn = Counter(values["counts"]), values["failures"], values["turn"]
    with tempfile.TemporaryDirectory() as work:
        corpus = make_all(Path(work)).root
        pool, end = new_pool(), time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            name = names[turn % len(names)]
            size = BATCH.get(name, 100)
            start = seed * 10**9 + turn // len(names) * size
            try:
                cases = pool.submit(run_batch, corpus, name, range(start, start + size), Path(work)).result()
            except BrokenProcessPool:
                cases = [(f"{name}-{start}-died", f"a case of {start} to {start + size - 1} ended the process", b"")]
                pool = new_pool()
            for title, what, content in cases:
                out.mkdir(parents=True, exist_ok=True)
                (out / title.replace(" ", "_")).write_bytes(content)
                print(f"{title}: {what}", flush=True)
            counts[name], failures, turn = counts[name] + size, failures + len(cases), turn + 1
            if state is not None:
                values = {"seed": seed, "names": names, "counts": counts, "failures": failures, "turn": turn}
                write_json(state, values)
        pool.shutdown()
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    print(f"{counts.total()} cases, {failures} failures{f', see {out}' if failures else ''}")
    raise typer.Exit(int(failures > 0))


if __name__ == "__main__":
    typer.run(main)
