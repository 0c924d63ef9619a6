"""What the page shows, as HTML; text of visitors and of banks is escaped in the templates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING

import numpy as np

from ..drawing.pages import data_uri, drawn, render
from ..drawing.style import svg
from ..reporting.bank_figures import map_figure, overlaps, positions
from ..reporting.figures import MAX_CONFUSION, confusion_figure, curve_figure, vote_figure
from ..text import counted
from .jobs import Progress

if TYPE_CHECKING:
    import torch

    from ..adapt.plan import Plan
    from ..bank.entry import Entry
    from ..data.task import TaskData
    from ..reporting.report import AdaptReport
    from ..result import AdaptResult
    from .comparison import Compared

SHOWN_PHOTOS, SHOWN_RUNNERS_UP, MOST_MAPPED = 5, 4, 500
SHOWN_ANSWERS = 5
FEW, GOOD = 20, 0.9
"""Photos that show how good a model is, and a share of them from which on there is little to say."""


def message(text: str, kind: str = "status") -> str:
    """A sentence for the visitor; `kind` "alert" for what went wrong, which a screen reader says at once."""
    return render("message.html", text=text, kind=kind)


def classes(found: Mapping[str, Sequence[torch.Tensor]], example: TaskData | None) -> str:
    """The classes so far, with a few photos of each."""
    if not found and example is None:
        return render("classes.html", rows=[], hint="")
    from ..reporting.misclassified import thumbnail

    if example is not None:
        train = example.train
        labels = map(readable, example.task.labels)
        found = {label: list(train.images[train.targets == i]) for i, label in enumerate(labels)}
    rows = []
    for label, images in found.items():
        shown = [data_uri(thumbnail(image)) for image in images[:SHOWN_PHOTOS]]
        rows.append((label, counted(len(images), "photo"), shown, len(images) - len(shown)))
    return render("classes.html", rows=rows, hint=_hint(found) if example is None else "")


def readable(label: str) -> str:
    """A class of a bank or an example, as people would write it."""
    return label.replace("_", " ")


def _hint(found: Mapping[str, Sized]) -> str:
    """What is still missing, or would help."""
    few = [label for label, images in found.items() if len(images) < FEW]
    if not found:
        return ""
    if len(found) == 1:
        return "Now another class: it takes at least two, to tell them apart."
    if few:
        return f"It works with a few; {FEW} photos or more of each would make it better, and show how good it is."
    return "Enough to begin: press “Make my model”, or add more."


def neighbors(plan: Plan, ratio: float) -> str:
    """The nearest tasks, ranked, those that vote first, and a map of the bank with the visitor's task."""
    parts = {"votes": plan.neighbors, "does not vote": plan.runners_up[:SHOWN_RUNNERS_UP]}
    found = [(_named(n.entry), part, f"{n.score:.2f}") for part, some in parts.items() for n in some]
    rows = [(f"{i}. {name}", *rest) for i, (name, *rest) in enumerate(found, 1)]
    voters = {n.entry.id: n.entry for n in plan.neighbors}
    others = (entry for entry in plan.neighbors[0].entry.bank if entry.id not in voters)
    entries = [*voters.values(), *itertools.islice(others, MOST_MAPPED)]  # a map takes n³ steps
    places = positions(overlaps([*(entry.mask for entry in entries), plan.mask(ratio)]))
    made = map_figure(places, len(voters), len(entries))
    picture = svg(made, "Map of the bank's tasks with yours among them")
    bank = plan.neighbors[0].entry.bank
    return render("neighbors.html", rows=rows, voters=len(voters), of=len(bank), picture=drawn(picture))


def _named(entry: Entry) -> str:
    return ", ".join(map(readable, entry.labels))


def vote(plan: Plan, ratio: float, layer: str) -> str:
    """Who keeps which unit of a layer, and what the new model keeps."""
    mask = plan.mask(ratio)
    masks = {_named(n.entry): n.entry.mask for n in plan.neighbors}
    picture = svg(vote_figure(layer, masks, mask), f"The vote in layer {layer}")
    kept = {"kept": mask.n_kept, "of": mask.n_units, "layers": len(mask), "voters": len(masks)}
    return render("vote.html", picture=drawn(picture), layer=layer, **kept)


def size(cost: tuple[int, int], whole: tuple[int, int], milliseconds: float, made: float | None = None) -> str:
    """What a model would be, before it is made.

    Args:
        cost: its parameters and MACs.
        whole: those of the base.
        made: the ratio of the model that there is, if that is another one.
    """
    params, macs = cost
    return render(
        "size.html",
        params=f"{params:,}",
        share=f"{params / whole[0]:.1%}",
        macs=f"{macs / whole[1]:.1%}",
        kilobytes=f"{4 * params / 1000:,.0f}",
        milliseconds=f"{milliseconds:.1f}",
        made=None if made is None else f"{made:.2f}",
    )


def waiting(before: int) -> str:
    """That others come first."""
    return render("waiting.html", before=f"{counted(before, 'visitor')} {'is' if before == 1 else 'are'}")


def training(progress: Progress) -> str:
    """How far the training is, and the curve so far."""
    left = progress.seconds_left
    picture = None
    if len(progress.accuracies) > 1:
        picture = drawn(svg(curve_figure({"this model": progress.accuracies}), "Accuracy by step so far"))
    return render(
        "training.html",
        what=progress.what,
        step=progress.step,
        steps=progress.steps,
        left=None if left is None else f"about {max(1, round(left))} s left",
        picture=picture,
    )


def answer(probabilities: dict[str, float]) -> str:
    """What the model says of a photo: the classes that it finds most likely."""
    rows = sorted(probabilities.items(), key=lambda item: -item[1])[:SHOWN_ANSWERS]
    return render("answer.html", rows=rows)


def done(made: AdaptResult) -> str:
    """That the model is there, and how good it is."""
    report: AdaptReport = made.report
    text = f"Done in {sum(report.seconds.values()):.0f} s."
    if report.test_images:
        text += f" It recognizes {round(report.accuracy * report.test_images)} of {report.test_images} test photos."
    return render("done.html", text=text, part="result")


def result(made: AdaptResult, kilobytes: float) -> str:
    """The main figures, the curve, the confusion matrix."""
    from ..reporting.page import MADE_IN, tiles

    report: AdaptReport = made.report
    pictures = []
    if len(report.accuracy_at_step) > 1 and report.test_images >= FEW:
        curve = drawn(svg(curve_figure(report.learning_curves), "Accuracy by step of fine-tuning"))
        pictures.append((curve, "How it learnt", "Of the test photos, those that it recognized."))
    if np.any(report.confusion) and len(report.labels) <= MAX_CONFUSION:
        labels = list(map(readable, report.labels))
        matrix = drawn(svg(confusion_figure(report.confusion, labels), "Confusion matrix"))
        pictures.append((matrix, "Where it errs", "Rows: what a photo is. Columns: what it was taken for."))
    figures = [*(tile for tile in tiles(report) if tile[1] != MADE_IN), (f"{kilobytes:,.0f} kB", "to download")]
    return render("result.html", summary=list(verdict(report)), tiles=figures, pictures=pictures)


def verdict(report: AdaptReport) -> Iterator[str]:
    """How good the model is, and what would make it better."""
    if not report.test_images:
        return
    low, high = report.accuracy_interval
    chance = 1 / len(report.labels)
    yield f"It recognizes {report.accuracy:.0%} of the test photos; a guess would be right for {chance:.0%}."
    yield f"With more photos to test it on, it would most likely lie between {low:.0%} and {high:.0%}."
    if report.test_images < FEW:
        yield f"That is a rough figure: only {counted(report.test_images, 'photo')} could be held back to test it."
    if low <= chance:
        yield "That is no better than chance: add photos, or choose classes that differ more."
    elif report.accuracy < GOOD:
        yield "More photos of each class make a better one most surely; a larger model, by the slider, may, too."


def compared(rows: Sequence[Compared], whole: tuple[int, int], progress: Progress | None = None) -> str:
    """This model beside other ways; `progress` is of the one that is being tried."""
    table = [(way.name, f"{way.accuracy:.0%}", f"{way.params:,}", f"{way.params / whole[0]:.1%}") for way in rows]
    trying = None
    if progress is not None:
        trying = progress.what + (f": step {progress.step} of {progress.steps}" if progress.steps else "")
    return render("compared.html", rows=table, trying=trying, said=_compared_words(rows) if trying is None else "")


def _compared_words(rows: Sequence[Compared]) -> str:
    """What the comparison shows, in a sentence."""
    mine, *others = rows
    same_size = [way for way in others if way.params <= 1.01 * mine.params]
    larger = [way for way in others if way not in same_size]
    if not same_size:
        return ""
    best = max(same_size, key=lambda way: way.accuracy)
    points = round(100 * (mine.accuracy - best.accuracy))
    side = f"{counted(abs(points), 'point')} {'above' if points > 0 else 'below'}" if points else "as good as"
    said = f"Your model is {side} the best other way of its size"
    if not larger:
        return f"{said}."
    times, possible = larger[-1].params / mine.params, larger[-1].accuracy
    return f"{said}. The whole base is {times:,.0f} times as large, and shows what is possible: {possible:.0%}."


def published(url: str) -> str:
    """Where the model is now."""
    return render("published.html", url=url)
