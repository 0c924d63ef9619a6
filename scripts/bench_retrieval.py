#!/usr/bin/env python
"""Benchmark: finding the neighbors in a large bank in two stages, against LEEP of every entry.

A shortlist is made without looking at the entries' weights, by one of several measures; LEEP decides among those. How
many of LEEP's three best entries are on shortlists of several lengths, and what that costs:

    uv run scripts/bench_retrieval.py --bank runs/bank208 --data ../shared/data/cifar100

The targets are five-class tasks of CIFAR-100, half of them of classes that no entry has, drawn with another seed than
those of the other benchmarks. Costs are counted in FLOPs; the wall times are of one run, with nothing else running.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from build_demo_bank import TASK_SIZE, held_out_classes, read_cifar100

from hf_metaprune import Bank
from hf_metaprune.bank.entry import Entry
from hf_metaprune.bank.factory import sketch_bank
from hf_metaprune.bank.sketch import REFERENCE_IMAGES, BaseFeatures
from hf_metaprune.data.images import ImageSet
from hf_metaprune.data.task import TaskData, pick_classes
from hf_metaprune.similarity import Query, auto, get_similarity
from hf_metaprune.similarity.auto import guess_scores
from hf_metaprune.similarity.leep import leep
from hf_metaprune.similarity.leep_labels import LABEL_WEIGHT, known_share
from hf_metaprune.sizing.cost_model import count_flops
from hf_metaprune.training.forward import predict_logits

CPU = torch.device("cpu")
SHARES = (0.02, 0.05, 0.07, 0.09, 0.1, 0.15, 0.2, 0.3)
BEST = 3
Scores = dict[str, float]


def targets(cifar: TaskData, count: int) -> Iterator[tuple[str, int, TaskData]]:
    """(kind, images per class, task): tasks of seen and of unseen classes, each with few and with many images."""
    unseen = np.array(held_out_classes())
    pools = {"seen": np.setdiff1d(np.arange(100), unseen), "unseen": unseen}
    rng = np.random.default_rng(31)
    for kind, pool in pools.items():
        for number in range(count):
            classes = sorted(rng.choice(pool, TASK_SIZE, replace=False).tolist())
            for per_class in (5, 20):
                yield kind, per_class, cifar.select(classes, per_class, seed=number)


def exact_scores(entries: list[Entry], queries: list[Query]) -> list[Scores]:
    """LEEP of every entry for each query; each entry is loaded once."""
    query_scores: list[Scores] = [{} for _ in queries]
    images = ImageSet(
        torch.cat([q.sample.images for q in queries]),
        torch.cat([q.sample.targets for q in queries]),
        queries[0].sample.preprocessing,
    )
    starts = np.cumsum([0, *(len(q.sample) for q in queries)])
    for entry in entries:
        model = entry.load_model().to(memory_format=torch.channels_last)
        probabilities = predict_logits(model, images, CPU, "auto").double().softmax(1).numpy()
        for scores, query, start in zip(query_scores, queries, starts, strict=False):
            scores[entry.id] = leep(probabilities[start : start + len(query.sample)], query.sample.targets.numpy())
    return query_scores


def class_means(features: np.ndarray, targets: torch.Tensor) -> np.ndarray:
    """Unit vectors (classes, features): the mean of each class."""
    means = np.stack([features[targets.numpy() == c].mean(0) for c in range(int(targets.max()) + 1)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


class Embeddings:
    """The base's class means of the target, against those of every entry's task (Task2Vec's way, but simpler)."""

    def __init__(self, bank: Bank, cifar: TaskData) -> None:
        self.features = BaseFeatures(bank.base, CPU)
        few = cifar.train.stratified(100 * len(cifar.task.labels), 0)
        x = self.features(few)
        self.center = x.mean(0)
        means = class_means(x - self.center, few.targets)
        number = {label: i for i, label in enumerate(cifar.task.labels)}
        self.tasks = {e.id: means[[number[label] for label in e.labels]] for e in bank}

    def __call__(self, query: Query, entries: list[Entry]) -> Scores:
        own = class_means(self.features(query.sample) - self.center, query.sample.targets)
        cosines = {e.id: own @ self.tasks[e.id].T for e in entries}
        return {i: float(c.max(1).mean() + c.max(0).mean()) / 2 for i, c in cosines.items()}


def with_labels(scores: Scores, query: Query, entries: list[Entry]) -> Scores:
    return {e.id: scores[e.id] + LABEL_WEIGHT * known_share(query, e) for e in entries}


def recall(guess: Scores, exact: Scores, places: int) -> tuple[float, float]:
    """Share of the best entries that are on the shortlist, and by how much its best one is worse, in nats."""
    best, some = (sorted(scores, key=lambda i: (-scores[i], i)) for scores in (exact, guess))
    score = max(exact[i] for i in some[:places])
    return len(set(best[:BEST]) & set(some[:places])) / BEST, exact[best[0]] - score


def base_cost(bank: Bank, image: torch.Tensor) -> float:
    """FLOPs of the base, in those of a mean entry."""
    each = np.mean([count_flops(e.load_model(), image)[0] for e in bank])
    return float(count_flops(bank.base.whole(), image)[0] / each)


def wall_times(bank: Bank, queries: list[Query], names: tuple[str, str] = ("leep+labels", "auto")) -> dict[str, float]:
    """Mean seconds of ranking, by similarity, taken in turn."""
    seconds: dict[str, float] = defaultdict(float)
    for query in queries:
        for name in names:
            similarity, began = get_similarity(name), time.perf_counter()
            similarity.rank(query, similarity.shortlist(query, list(bank)))
            seconds[name] += (time.perf_counter() - began) / len(queries)
    return dict(seconds)


def main(
    bank: Annotated[Path, typer.Option(help="The bank; entries that lack a sketch get one.")] = Path("runs/bank208"),
    data: Annotated[str | None, typer.Option(help="Folder of CIFAR-100 parquet; the Hub's copy if left out.")] = None,
    count: Annotated[int, typer.Option("--targets", help="Targets of each kind.")] = 10,
    timed: Annotated[int, typer.Option(help="Queries whose wall time is taken.")] = 3,
) -> None:
    """Print the tables."""
    whole_bank = Bank.open(bank)
    cifar = read_cifar100(whole_bank.base, data)
    seen_classes = [c for c in range(100) if c not in held_out_classes()]
    few = pick_classes(cifar.train.stratified(REFERENCE_IMAGES * 100 // len(seen_classes), 0), seen_classes)
    sketch_bank(whole_bank, few, device=CPU)
    entries = list(whole_bank)
    cases = [(kind, n, Query(d.task, d.train, CPU)) for kind, n, d in targets(cifar, count)]
    queries = [query for _, _, query in cases]
    exact = exact_scores(entries, queries)
    embeddings, wordnet = Embeddings(whole_bank, cifar), get_similarity("wordnet")
    measures: dict[str, Callable[[Query], Scores]] = {
        "chance": lambda q: dict(zip(whole_bank.entries, np.random.default_rng(0).random(len(entries)), strict=True)),
        "WordNet": lambda q: dict(wordnet.scores(q, entries)),
        "class means of the base": lambda q: embeddings(q, entries),
        "sketches": lambda q: guess_scores(q, entries),
    }
    places = [int(np.ceil(share * len(entries))) for share in SHARES]
    base = base_cost(whole_bank, queries[0].sample.images[:1])
    print(f"{len(entries)} entries, {len(queries)} queries")
    print(f"recall of the {BEST} best by LEEP with labels (nats that the best of the shortlist is worse)\n")
    print("| shortlist | queries | " + " | ".join(f"{p} ({p / len(entries):.0%})" for p in places) + " |")
    print("| --- " * (len(places) + 2) + "|")
    for name, measure in measures.items():
        groups: dict[str, list[list[tuple[float, float]]]] = defaultdict(list)
        for (kind, n, query), scores in zip(cases, exact, strict=True):
            true, guess = with_labels(scores, query, entries), measure(query)
            for group in ("all", f"{kind}, {n} a class"):
                groups[group].append([recall(guess, true, p) for p in places])
        for group, rows in sorted(groups.items()):
            means = np.mean(rows, axis=0)
            print(f"| {name} | {group} | " + " | ".join(f"{share:.2f} ({gap:.3f})" for share, gap in means) + " |")
        shares = [(p + (0 if name in ("chance", "WordNet") else base)) / len(entries) for p in places]
        print(f"| {name} | cost | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    seconds = wall_times(whole_bank, queries[1 : 1 + 2 * timed : 2])
    print(f"\nseconds of ranking (20 images per class): {', '.join(f'{k} {v:.2f}' for k, v in seconds.items())}")
    print(f"auto looks at {max(auto.MIN_SHORTLIST, int(np.ceil(auto.SHORTLIST_SHARE * len(entries))))} entries")


if __name__ == "__main__":
    typer.run(main)
