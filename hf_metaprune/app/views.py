"""What the page shows, as HTML; text of visitors and of banks is escaped in the templates."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..markup import counted
from ..pages.render import data_uri, drawn, render
from ..pictures.bank import map_figure, overlaps, positions
from ..pictures.report import confusion_figure, curve_figure, vote_figure
from ..pictures.style import svg
from .jobs import Progress

if TYPE_CHECKING:
    from ..plan import Plan
    from ..report import AdaptReport
    from ..result import AdaptResult
    from ..task import TaskData
    from ..uploads import Photos
    from .comparison import Compared

SHOWN_PHOTOS, MOST_MAPPED = 6, 500
SHOWN_ANSWERS = 5


def message(text: str, kind: str = "status") -> str:
    """A sentence for the visitor; `kind` "alert" for what went wrong, which a screen reader says at once."""
    return render("message.html", text=text, kind=kind)


def classes(photos: Photos, example: TaskData | None) -> str:
    """The classes so far, with a few photos of each."""
    from ..mistakes import thumbnail

    found = photos.by_class
    if example is not None:
        train = example.train
        found = {label: list(train.images[train.targets == i]) for i, label in enumerate(example.task.labels)}
    rows = [
        (label, counted(len(images), "photo"), [data_uri(thumbnail(image)) for image in images[:SHOWN_PHOTOS]])
        for label, images in found.items()
    ]
    return render("classes.html", rows=rows)


def neighbours(plan: Plan, ratio: float) -> str:
    """The tasks that vote, ranked, and a map of the bank with the visitor's task."""
    rows = [[", ".join(n.entry.labels), f"{n.score:.3f}"] for n in plan.neighbours]
    voters = {n.entry.id: n.entry for n in plan.neighbours}
    others = (entry for entry in plan.neighbours[0].entry.bank if entry.id not in voters)
    entries = [*voters.values(), *itertools.islice(others, MOST_MAPPED)]  # a map takes n³ steps
    places = positions(overlaps([*(entry.mask for entry in entries), plan.mask(ratio)]))
    names = [", ".join(entry.labels) for entry in entries]
    made = map_figure(places, names, range(len(voters)), len(entries))
    picture = svg(made, "Map of the bank's tasks with yours among them")
    return render("neighbours.html", rows=rows, picture=drawn(picture))


def vote(plan: Plan, ratio: float, layer: str) -> str:
    """Who keeps which unit of a layer, and what the new model keeps."""
    mask = plan.mask(ratio)
    masks = {", ".join(n.entry.labels): n.entry.mask for n in plan.neighbours}
    picture = svg(vote_figure(layer, masks, mask), f"The vote in layer {layer}")
    return render("vote.html", picture=drawn(picture), layer=layer, layers=len(mask), kept=mask.n_kept, of=mask.n_units)


def size(plan: Plan, ratio: float, whole: tuple[int, int], milliseconds: float) -> str:
    """What a model of that ratio would be, before it is made; `whole`: parameters and MACs of the base."""
    params, macs = plan.cost(ratio)
    return render(
        "size.html",
        params=f"{params:,}",
        share=f"{params / whole[0]:.1%}",
        macs=f"{macs / whole[1]:.1%}",
        kilobytes=f"{4 * params / 1000:,.0f}",
        milliseconds=f"{milliseconds:.1f}",
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


def result(made: AdaptResult) -> str:
    """The main figures, the curve, the confusion matrix."""
    from ..pages.model_page import summary, tiles

    report: AdaptReport = made.report
    pictures = []
    if len(report.accuracy_at_step) > 1:
        pictures.append(drawn(svg(curve_figure(report.ways), "Accuracy by step of fine-tuning")))
    if np.any(report.confusion):
        pictures.append(drawn(svg(confusion_figure(report.confusion, report.labels), "Confusion matrix")))
    return render("result.html", summary=list(summary(report)), tiles=tiles(report), pictures=pictures)


def compared(rows: Sequence[Compared], whole: tuple[int, int], progress: Progress | None = None) -> str:
    """This model beside other ways; `progress` is of the one that is being tried."""
    table = [(way.name, f"{way.accuracy:.1%}", f"{way.params:,}", f"{way.params / whole[0]:.1%}") for way in rows]
    trying = None
    if progress is not None:
        trying = progress.what + (f": step {progress.step} of {progress.steps}" if progress.steps else "")
    return render("compared.html", rows=table, trying=trying)


def published(url: str) -> str:
    """Where the model is now."""
    return render("published.html", url=url)
