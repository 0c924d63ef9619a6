#!/usr/bin/env python
"""Benchmark: what a large bank, and a large commons, cost on the Hub in requests, bytes and seconds.

The Hub is the tests' own on loopback (`tests/hub`), which the real client talks to over HTTP and which counts. It has
not the distance of the real one: seconds are those of this machine's work. The client runs in processes of its own
(`hub_client.py`), another one for each ranking; they have imported the library, and nothing else. The entries are
sub-networks of the demo bank's base with random masks (`random_bank.py`): what they know does not matter here. Needs
the WordNet data.

    OMP_NUM_THREADS=1 uv run --extra dev scripts/bench_hub.py
    OMP_NUM_THREADS=1 uv run --extra dev scripts/bench_hub.py --entries 25 --repeats 1

Budgets of requests and bytes hold on every machine: the program fails when one is missed.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import hub_client
import typer
from build_demo_bank import held_out_classes
from random_bank import cifar100_task, make_bank, random_models

from hf_metaprune import Bank
from hf_metaprune.bank.commits import COMMIT_ENTRIES
from hf_metaprune.files.layout import BASE_FOLDER, CARD, CONFIG, INDEX_FILE, PREPROCESSOR, REPORT, WEIGHTS
from hf_metaprune.reporting.model_card import ModelCard
from hf_metaprune.reporting.report_files import load_report
from tests import forked
from tests.hub import LoopbackHub

log = logging.getLogger("bench_hub")
REPO = Path(__file__).resolve().parents[1]
DEMO_BANK, EXAMPLE = REPO / "space" / "demo_bank", REPO / "space" / "examples" / "unseen_five"
TOKEN = "hf_token_of_me"
BANK, MODEL = "me/bank", "me/model"
OWNERS = 50
METHODS = ("HEAD", "GET", "POST", "PUT")
OPEN_REQUESTS, OPEN_BYTES, OPEN_SECONDS = 4, 5_000_000, 2.0


@dataclass
class Row:
    """One step: what the server counted, and what the client said."""

    what: str
    methods: Counter[str]
    sent: int
    received: int
    facts: dict[str, Any]
    budgets: dict[str, bool] = field(default_factory=dict)
    """Whether each was met."""

    @property
    def requests(self) -> int:
        """All requests, to the Hub and to its storage."""
        return sum(self.methods.values())

    @property
    def seconds(self) -> float:
        """As the client measured them, without its start."""
        return self.facts["seconds"]

    def cells(self) -> list[str]:
        """The cells of the table."""
        counts = [f"{n:,}" for n in (self.requests, *(self.methods[method] for method in METHODS))]
        sizes = [f"{n / 1e6:,.2f}" for n in (self.sent, self.received)]
        budget = "; ".join(f"{what}: {'met' if met else '**missed**'}" for what, met in self.budgets.items())
        return [self.what, *counts, *sizes, f"{self.seconds:.2f}", f"{self.facts['cpu_seconds']:.2f}", budget]


Run = Callable[..., Row]


class Bench:
    """A loopback Hub and its clients; what was counted becomes the table."""

    def __init__(self, hub: LoopbackHub, work: Path, bank: Bank) -> None:
        self.hub, self.work, self.bank = hub, work, bank
        self.rows: list[Row] = []

    @contextmanager
    def client(self, home: str) -> Iterator[Run]:
        """A process that runs steps of `hub_client.py`, each of which gives a row that has no name yet."""
        context = forked.context()
        ours, theirs = context.Pipe()
        arguments = (theirs, self.hub.endpoint, self.work / home, TOKEN)
        process = context.Process(target=hub_client.answer, args=arguments)
        process.start()
        theirs.close()
        with ours:
            yield partial(self._run, ours)
        process.join()

    def _run(self, client: Connection, step: str, **options: Any) -> Row:
        self.hub.reset_log()
        client.send(options | {"step": step})
        try:
            facts = client.recv()
        except EOFError:
            raise SystemExit(f"step {step} failed") from None
        methods = Counter(request.method for request in self.hub.requests)
        row = Row(step, methods, self.hub.bytes_out, self.hub.bytes_in, facts)
        log.info("%s: %d requests, %s", step, row.requests, row.facts)
        return row

    def asked(self) -> set[str]:
        """Paths of the files of repositories that the last step asked for."""
        return {request.path.partition("/resolve/")[2].partition("/")[2] for request in self.hub.seen(path="/resolve/")}

    def add(self, what: str, row: Row, budgets: dict[str, bool] | None = None) -> None:
        """Put a row into the table."""
        self.rows.append(replace(row, what=what, budgets=budgets or {}))

    def table(self) -> str:
        """All rows as Markdown."""
        header = ["", "requests", *METHODS, "MB sent by the Hub", "MB received", "seconds", "of the CPU", "budget"]
        dashes = ["---", *["---:"] * (len(header) - 2), "---"]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, dashes, *(row.cells() for row in self.rows)])


def bench_publishing(bench: Bench) -> None:
    """A new bank, the same bank again, and the bank with one more entry."""
    count = len(bench.bank)
    publish = {"step": "publish", "bank": str(bench.bank.root), "repo_id": BANK}
    with bench.client("publisher") as run:
        for what, commits in ((f"publish {count:,} entries", -(-count // COMMIT_ENTRIES)), ("publish them again", 0)):
            row = run(**publish)
            bench.add(what, row, {f"{commits} commit{'' if commits == 1 else 's'}": row.facts["commits"] == commits})
        [(name, model)] = random_models(bench.bank.base, count + 1, count)
        bench.bank.add(model, name)
        row = run(**publish)
        bench.add("publish them with one more", row, {"1 commit": (row.facts["commits"], row.facts["added"]) == (1, 1)})


def bench_opening(bench: Bench, repeats: int) -> None:
    """Open the bank in a fresh cache and a fresh process, and rank it for five classes that no entry has."""
    task = cifar100_task(bench.bank.base, held_out_classes()[:5])
    runs = []
    for n in range(repeats):
        with bench.client(f"reader-{n}") as run:
            runs.append(run("rank", repo_id=BANK, labels=task.labels, synsets=task.synsets))
    assert {row.facts["entries"] for row in runs} == {len(bench.bank)}
    row = sorted(runs, key=lambda row: row.seconds)[repeats // 2]
    budgets = {
        f"{OPEN_REQUESTS} requests": row.requests <= OPEN_REQUESTS,
        f"{OPEN_BYTES / 1e6:.0f} MB": row.sent <= OPEN_BYTES,
        f"{OPEN_SECONDS:.0f} s": row.seconds <= OPEN_SECONDS,
    }
    bench.add(f"open {len(bench.bank):,} entries and rank them by WordNet", row, budgets)


def bench_using(bench: Bench) -> None:
    """Adapt from the bank, each time with a fresh cache, and search a commons of as many models as the bank had."""
    with bench.client("user") as run:
        for neighbors in (1, 3):
            options = {"repo_id": BANK, "data": str(EXAMPLE), "neighbors": neighbors}
            row = run("adapt", cache_dir=str(bench.work / f"adapt-{neighbors}"), **options)
            met = fetched_only(bench, row, neighbors)
            bench.add(f"adapt from them, N = {neighbors}", row, {f"only index, base and N = {neighbors}": met})
        run("adapt", cache_dir=str(bench.work / "adapt-1"), to=MODEL, **options | {"neighbors": 1})
        fill_commons(bench.hub, bench.bank)
        models = len(bench.bank) - 1
        pages = -(-models // bench.hub.page_size)
        for what, looked_at in (("cold", models), ("warm", 0), ("one model changed", 1)):
            if what == "one model changed":
                bench.hub.put_files(MODEL, {"notes.txt": "changed"})
            row = run("search", base_model=BANK, cache_dir=str(bench.work / "search"))
            assert (row.facts["models"], row.facts["left_out"]) == (models, 0)
            limit = (2 if what == "cold" else 1) + pages + 2 * looked_at
            bench.add(f"search {models:,} models: {what}", row, {f"{limit:,} requests": row.requests <= limit})


def fetched_only(bench: Bench, row: Row, neighbors: int) -> bool:
    """Whether an adaptation got the index, the base and its neighbors, each once, and nothing else."""
    voters, files = row.facts["voters"], bench.hub.read_files(BANK)
    paths = {f"{path}/{name}" for path in (BASE_FOLDER, *voters) for name in (CONFIG, WEIGHTS)} | {INDEX_FILE}
    sizes = sum(len(files[path]) for path in paths)
    return len(voters) == neighbors and bench.asked() == paths and row.sent == sizes


def fill_commons(hub: LoopbackHub, bank: Bank) -> None:
    """Put single models beside me/model: the published bank's entries, with files and cards of their own."""
    report = bank.root.parent / REPORT
    report.write_bytes(hub.read_files(MODEL)[REPORT])
    files = hub.read_files(BANK)
    for n, entry in enumerate(list(bank)[:-2]):
        repo_id = f"owner-{n % OWNERS}/model-{n}"
        model_files = {name: files[f"{entry.path}/{name}"] for name in (CONFIG, WEIGHTS, PREPROCESSOR)}
        config = json.loads(model_files[CONFIG]) | {"labels": list(entry.labels)}
        model_report = replace(load_report(report), labels=list(entry.labels))
        card = ModelCard(repo_id, config, entry.packed_mask, model_report, entry.sha256, entry.size)
        hub.put_files(repo_id, model_files | {CARD: card.render().encode(), REPORT: report})


def main(
    entries: Annotated[int, typer.Option(help="Entries of the bank, and models of the commons.", min=4)] = 1000,
    repeats: Annotated[int, typer.Option(help="Times the bank is opened; the median is shown.", min=1)] = 3,
) -> None:
    """Measure everything and print the table."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    with tempfile.TemporaryDirectory() as name, LoopbackHub() as hub:
        hub.add_user("me", token=TOKEN)
        began = time.perf_counter()
        bank = make_bank(Path(name) / "bank", Bank.open(DEMO_BANK).base, entries)
        log.info("made %d entries in %.0f s", len(bank), time.perf_counter() - began)
        bench = Bench(hub, Path(name), bank)
        bench_publishing(bench)
        bench_opening(bench, repeats)
        bench_using(bench)
        print(bench.table())
    misses = [what for row in bench.rows for what, met in row.budgets.items() if not met and not what.endswith(" s")]
    if misses:
        raise SystemExit(f"missed: {'; '.join(misses)}")


if __name__ == "__main__":
    typer.run(main)
