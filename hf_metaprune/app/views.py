"""The parts of the page as HTML; the templates escape text of visitors and of banks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING

import numpy as np

from ..drawing.pages import data_uri, render, svg_markup
from ..drawing.style import svg
from ..reporting.bank_figures import map_figure, pairwise_iou, positions
from ..reporting.figures import MAX_CONFUSION, confusion_figure, curve_figure, vote_figure
from ..text import quantity
from .jobs import Progress

if TYPE_CHECKING:
    import torch

    from ..adapt.plan import Plan
    from ..bank.entry import Entry
    from ..data.task import TaskData
    from ..reporting.report import AdaptReport
    from ..result import AdaptResult
    from .comparison import ComparisonRow

MAX_SHOWN_PHOTOS, MAX_SHOWN_RUNNERS_UP, MAX_SHOWN_ANSWERS = 5, 4, 5
"""Most photos shown per class, most tasks shown that do not vote, and most classes shown of an answer."""
MAX_MAPPED_TASKS = 500
"""Most tasks that do not vote on the map."""
FEW_PHOTOS = 20
"""Fewer photos than this per class, or to test on, are called few."""
GOOD_ACCURACY = 0.9
"""Accuracy from which on the page gives no advice."""


def message(text: str, kind: str = "status") -> str:
    """Return a message for the visitor.

    Args:
        text: the message; each line becomes a paragraph.
        kind: the ARIA role: "status", or "alert" for errors, which a screen reader reads out at once.
    """
    return render("message.html", text=text, kind=kind)


def classes(
    photos_by_class: Mapping[str, Sequence[torch.Tensor]],
    example: TaskData | None,
    unlabeled: Sequence[torch.Tensor] = (),
) -> str:
    """Return the classes so far, with a few photos of each.

    Args:
        photos_by_class: the visitor's photos, uint8 (3, height, width) each.
        example: the example that is used instead, if there is one.
        unlabeled: the visitor's photos without labels.
    """
    if not photos_by_class and not unlabeled and example is None:
        return render("classes.html", rows=[], hint="")
    from ..reporting.misclassified import thumbnail

    if example is not None:
        train = example.train
        labels = map(readable_label, example.task.labels)
        photos_by_class = {label: list(train.images[train.targets == i]) for i, label in enumerate(labels)}
    rows = []
    for label, photos in photos_by_class.items():
        thumbnails = [data_uri(thumbnail(photo)) for photo in photos[:MAX_SHOWN_PHOTOS]]
        rows.append((label, quantity(len(photos), "photo"), thumbnails, len(photos) - len(thumbnails)))
    if unlabeled and example is None:
        thumbnails = [data_uri(thumbnail(photo)) for photo in unlabeled[:MAX_SHOWN_PHOTOS]]
        count = f"{quantity(len(unlabeled), 'photo')} without labels"
        rows.append(("", count, thumbnails, len(unlabeled) - len(thumbnails)))
    return render("classes.html", rows=rows, hint=_photo_hint(photos_by_class) if example is None else "")


def readable_label(label: str) -> str:
    """Return a class of a bank or an example as people write it."""
    return label.replace("_", " ")


def _photo_hint(photos_by_class: Mapping[str, Sized]) -> str:
    """Return a sentence about which photos are missing, or would help."""
    if not photos_by_class:
        return ""
    if len(photos_by_class) == 1:
        return "Now add photos of another class: a model needs at least two."
    if any(len(photos) < FEW_PHOTOS for photos in photos_by_class.values()):
        return (
            f"A few photos are enough to begin. {FEW_PHOTOS} photos or more per class make the model better, and show "
            "how good it is."
        )
    return "These photos are enough: press “Make my model”, or add more."


def neighbors(plan: Plan, ratio: float) -> str:
    """Return the nearest tasks, those that vote first, and a map of the bank with the visitor's task."""
    parts = {"votes": plan.neighbors, "does not vote": plan.runners_up[:MAX_SHOWN_RUNNERS_UP]}
    cells = [(_entry_name(n.entry), part, f"{n.score:.2f}") for part, tasks in parts.items() for n in tasks]
    rows = [(f"{i}. {name}", *values) for i, (name, *values) in enumerate(cells, 1)]
    voters = {n.entry.id: n.entry for n in plan.neighbors}
    bank = plan.neighbors[0].entry.bank
    other_entries = (entry for entry in bank if entry.id not in voters)
    entries = [*voters.values(), *itertools.islice(other_entries, MAX_MAPPED_TASKS)]  # a map takes n³ steps
    points = positions(pairwise_iou([*(entry.mask for entry in entries), plan.mask(ratio)]))
    picture = svg(map_figure(points, len(voters), len(entries)), "Map of the bank's tasks with yours among them")
    return render("neighbors.html", rows=rows, voters=len(voters), n_tasks=len(bank), picture=svg_markup(picture))


def _entry_name(entry: Entry) -> str:
    return ", ".join(map(readable_label, entry.labels))


def vote(plan: Plan, ratio: float, layer: str) -> str:
    """Return which neighbor keeps which unit of a layer, and which units the new model keeps."""
    mask = plan.mask(ratio)
    masks = {_entry_name(n.entry): n.entry.mask for n in plan.neighbors}
    picture = svg(vote_figure(layer, masks, mask), f"The vote in layer {layer}")
    counts = {"kept": mask.n_kept, "n_units": mask.n_units, "layers": len(mask), "voters": len(masks)}
    return render("vote.html", picture=svg_markup(picture), layer=layer, **counts)


def size(
    cost: tuple[int, int], base_cost: tuple[int, int], milliseconds: float, other_ratio: float | None = None
) -> str:
    """Return how large and how fast a model would be, before it is made.

    Args:
        cost: parameters of the model, and its MACs per image.
        base_cost: parameters of the base, and its MACs per image.
        milliseconds: estimated milliseconds per image.
        other_ratio: the ratio of the visitor's present model, if it is another one.
    """
    params, macs = cost
    return render(
        "size.html",
        params=f"{params:,}",
        share=f"{params / base_cost[0]:.1%}",
        macs=f"{macs / base_cost[1]:.1%}",
        kilobytes=f"{4 * params / 1000:,.0f}",
        milliseconds=f"{milliseconds:.1f}",
        other_ratio=None if other_ratio is None else f"{other_ratio:.2f}",
    )


def waiting(ahead: int) -> str:
    """Return the message to a visitor in the waiting line.

    Args:
        ahead: visitors who come first.
    """
    return render("waiting.html", visitors=f"{quantity(ahead, 'visitor')} {'is' if ahead == 1 else 'are'}")


def training(progress: Progress) -> str:
    """Return the progress of a training, and its accuracies so far as a curve."""
    seconds_left = progress.seconds_left
    picture = None
    if len(progress.accuracies) > 1:
        picture = svg_markup(svg(curve_figure({"this model": progress.accuracies}), "Accuracy by step so far"))
    return render(
        "training.html",
        activity=progress.activity,
        step=progress.step,
        steps=progress.steps,
        time_left=None if seconds_left is None else f"about {max(1, round(seconds_left))} s left",
        picture=picture,
    )


def answer(probabilities: dict[str, float]) -> str:
    """Return the classes that the model finds most likely for a photo.

    Args:
        probabilities: the probability of each class; empty before a photo is there.
    """
    rows = sorted(probabilities.items(), key=lambda item: -item[1])[:MAX_SHOWN_ANSWERS]
    return render("answer.html", rows=rows)


def done(model: AdaptResult) -> str:
    """Return the message that the model is made, and how good it is."""
    report: AdaptReport = model.report
    text = f"Done in {sum(report.seconds.values()):.0f} s."
    if report.test_images:
        n_recognized = round(report.accuracy * report.test_images)
        text += f" The model recognizes {n_recognized} of {report.test_images} test photos."
    if report.unlabeled_images:
        text += f" The large network taught it on {quantity(report.unlabeled_images, 'photo')} without labels, too."
    return render("done.html", text=text, target="result")


def result(model: AdaptResult, kilobytes: float) -> str:
    """Return the main figures of a model, its learning curve, and its confusion matrix.

    Args:
        model: the visitor's model.
        kilobytes: size of the zip.
    """
    from ..reporting.page import TIME_CAPTION, tiles

    report: AdaptReport = model.report
    pictures = []
    if len(report.accuracy_at_step) > 1 and report.test_images >= FEW_PHOTOS:
        curve = svg_markup(svg(curve_figure(report.learning_curves), "Accuracy by step of fine-tuning"))
        pictures.append((curve, "How it learned", "Share of the test photos that the model recognized."))
    if np.any(report.confusion) and len(report.labels) <= MAX_CONFUSION:
        labels = list(map(readable_label, report.labels))
        matrix = svg_markup(svg(confusion_figure(report.confusion, labels), "Confusion matrix"))
        caption = "Rows: the true class of a photo. Columns: the class that the model named."
        pictures.append((matrix, "Where it errs", caption))
    figures = [*(tile for tile in tiles(report) if tile[1] != TIME_CAPTION), (f"{kilobytes:,.0f} kB", "to download")]
    return render("result.html", summary=list(verdict(report)), tiles=figures, pictures=pictures)


def verdict(report: AdaptReport) -> Iterator[str]:
    """Yield sentences about how good the model is, and what would make it better."""
    if not report.test_images:
        return
    low, high = report.accuracy_interval
    chance = 1 / len(report.labels)
    yield f"The model recognizes {report.accuracy:.0%} of the test photos. A guess would be right for {chance:.0%}."
    yield f"With more test photos, the share would most likely lie between {low:.0%} and {high:.0%}."
    if report.test_images < FEW_PHOTOS:
        n_photos = quantity(report.test_images, "photo")
        yield f"This is a rough figure, because only {n_photos} could be held back for the test."
    if low <= chance:
        yield "This is not clearly better than a guess: add photos, or choose classes that differ more."
    elif report.accuracy < GOOD_ACCURACY:
        yield "More photos of each class are the surest way to a better model. A larger model may help, too."


def comparison(rows: Sequence[ComparisonRow], base_cost: tuple[int, int], progress: Progress | None = None) -> str:
    """Return the comparison of the visitor's model with the baselines.

    Args:
        rows: the visitor's model, then the baselines that are made.
        base_cost: parameters of the base, and its MACs per image.
        progress: the progress of the baseline that is being made, if there is one.
    """
    cells = [(row.name, f"{row.accuracy:.0%}", f"{row.params:,}", f"{row.params / base_cost[0]:.1%}") for row in rows]
    if progress is None:
        return render("comparison.html", rows=cells, activity=None, summary=_comparison_summary(rows))
    activity = progress.activity + (f": step {progress.step} of {progress.steps}" if progress.steps else "")
    return render("comparison.html", rows=cells, activity=activity, summary="")


def _comparison_summary(rows: Sequence[ComparisonRow]) -> str:
    """Return in words what the comparison shows."""
    own_row, *baselines = rows
    same_size = [row for row in baselines if row.params <= 1.01 * own_row.params]
    larger = [row for row in baselines if row not in same_size]
    if not same_size:
        return ""
    best = max(same_size, key=lambda row: row.accuracy)
    points = round(100 * (own_row.accuracy - best.accuracy))
    relation = f"{quantity(abs(points), 'point')} {'above' if points > 0 else 'below'}" if points else "as good as"
    summary = f"Your model is {relation} the best baseline of its size."
    if not larger:
        return summary
    factor, accuracy = larger[-1].params / own_row.params, larger[-1].accuracy
    return f"{summary} The whole base is {factor:,.0f} times as large, and recognizes {accuracy:.0%}."


def published(url: str) -> str:
    """Return the message that the model is published.

    Args:
        url: address of the model on the Hub.
    """
    return render("published.html", url=url)
