"""`report.html`: one page about an adapted model: its accuracy, its size, who voted, and how to make it again."""

from __future__ import annotations

import base64
import itertools
import shlex
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from ..drawing.pages import bar, data_uri, render, style_sheet, svg_markup
from ..drawing.style import svg
from ..drawing.units import units_figure
from ..errors import MetaPruneError
from ..files.names import is_repo_id
from ..masks.mask import Mask
from ..masks.packing import unpack_mask
from ..text import quantity
from .adapted import AdaptedModel
from .figures import (
    MAX_CONFUSION,
    MAX_DRAWN_LAYERS,
    MAX_DRAWN_VOTERS,
    agreement_figure,
    confusion_figure,
    curve_figure,
    vote_figure,
)
from .report import OPTION_NAMES, VERSION_PATTERN, AdaptReport, voter_name

MAX_SHOWN_LABELS = 12
MAX_ROWS, MAX_NOTES, MAX_NOTE = 500, 50, 1000
"""Most rows of a table, most notes, and most characters of each; ``report.json`` has all."""
TIME_CAPTION = "to make it"
MIN_IMAGES_FOR_TENTHS = 200
"""Fewer test images than this give an accuracy without decimals: a tenth of a percent says nothing then."""
MAX_VOTERS, MAX_LAYERS = 12, 60
"""More voters or layers than these are not drawn one by one."""


def model_page(result: AdaptedModel) -> str:
    """Return the report of an adapted model as HTML, without scripts or other files, of at most some 100 kB.

    The page shows thumbnails of mistakes only if the model was made in this process, because they are not saved with
    it.
    """
    return render("report.html", page=_page(result))


def _page(result: AdaptedModel) -> dict[str, Any]:
    report, mask = result.report, result.model.mask()
    return {
        "css": style_sheet(),
        "title": page_title(report.labels),
        "summary": list(summary(report)),
        "tiles": tiles(report),
        "curve": _curve(report),
        "curve_summary": _curve_summary(report),
        "confusion": _confusion(report),
        "mistakes": [
            {
                "label": mistake.label,
                "predicted": mistake.predicted_label,
                "score": f"{mistake.score:.0%}",
                "image": data_uri(mistake.jpeg),
            }
            for mistake in result.mistakes
        ],
        "per_class": [
            [label, bar(share), f"{share:.1%}"]
            for label, share in itertools.islice(report.accuracy_per_class.items(), MAX_ROWS)
            if share is not None and share == share
        ],
        "neighbors": [
            [
                voter_name(neighbor),
                ", ".join(neighbor["labels"][:MAX_ROWS]),
                f"{neighbor['score']:.3f}",
                f"{neighbor.get('share', 0):.0%}",
            ]
            for neighbor in report.neighbors[:MAX_ROWS]
        ],
        "vote_summary": _vote_summary(report),
        "votes": list(_votes(report, mask)),
        "agreement": _agreement(report),
        "size_summary": _size_summary(report),
        "sizes": _sizes(report),
        "units": svg_markup(svg(units_figure(mask, mask.sizes), "The units that stay in each layer")),
        "baseline_flops": _baseline_flops(report),
        "seconds": _seconds(report),
        "lineage": list(_lineage(result)),
        "command": command(report),
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        "notes": [note[:MAX_NOTE] for note in (*report.notes[:MAX_NOTES], report.skipped_summary) if note],
    }


def page_title(labels: list[str]) -> str:
    """Return a title that names a model's classes."""
    label_list = ", ".join(labels[:MAX_SHOWN_LABELS])
    more_labels = f" and {len(labels) - MAX_SHOWN_LABELS} more" if len(labels) > MAX_SHOWN_LABELS else ""
    return f"A classifier of {label_list}{more_labels}"


def summary(report: AdaptReport) -> Iterator[str]:
    """Yield sentences about the accuracy, the size and the making of a model, as far as they were measured."""
    if report.test_images:
        low, high = report.accuracy_interval
        yield (
            f"It recognized {report.accuracy:.1%} of {quantity(report.test_images, 'test image')}; with more of "
            f"them it would lie between {low:.0%} and {high:.0%}, with 95% confidence."
        )
    if report.base_params:
        share, macs = report.params / report.base_params, report.macs / max(1, report.base_macs)
        speed = ""
        if report.latency_ms:
            model_ms, base_ms = report.latency_ms["model"], report.latency_ms["base"]
            speed = f"; an image takes {model_ms:.1f} ms, where the base takes {base_ms:.1f}, on {report.machine}"
        yield f"It has {share:.1%} of the base network's parameters and needs {macs:.1%} of its arithmetic{speed}."
    if report.train_images:
        n_voters = len(report.neighbors)
        nearest = "nearest task" if n_voters == 1 else f"{n_voters} nearest tasks"
        help_text = f", with the help of the {nearest} in the bank" if n_voters else ", without a bank"
        if report.strategy == "trunk":
            help_text = ", from the trunk of the bank"
        images, seconds = quantity(report.train_images, "image"), sum(report.seconds.values())
        if report.unlabeled_images:
            images += f" and {quantity(report.unlabeled_images, 'photo')} without labels"
        yield f"It was made from {images} in {seconds:.0f} s{help_text}."


def tiles(report: AdaptReport) -> list[tuple[str, str]]:
    """Return the main figures with their captions."""
    figures = []
    if report.test_images:
        digits = 1 if report.test_images >= MIN_IMAGES_FOR_TENTHS else 0
        figures.append((f"{report.accuracy:.{digits}%}", f"recognized, of {quantity(report.test_images, 'image')}"))
    if report.base_params:
        figures.append((f"{report.params:,}", f"parameters, {report.params / report.base_params:.1%} of the base"))
    if report.latency_ms:
        figures.append((f"{report.latency_ms['model']:.1f} ms", "per image, one at a time"))
    if report.seconds:
        figures.append((f"{sum(report.seconds.values()):.0f} s", TIME_CAPTION))
    return figures


def _curve(report: AdaptReport) -> Markup | None:
    if len(report.accuracy_at_step) < 2:
        return None
    return svg_markup(
        svg(curve_figure(report.learning_curves), f"Accuracy by step of fine-tuning. {_curve_summary(report)}")
    )


def _curve_summary(report: AdaptReport) -> str:
    sentences = []
    for name, points in report.learning_curves.items():
        if points:
            (first_step, first_accuracy), (last_step, last_accuracy) = (
                next(iter(points.items())),
                list(points.items())[-1],
            )
            sentences.append(
                f"{name[:1].upper()}{name[1:]}: {first_accuracy:.1%} after {quantity(first_step, 'step')}, "
                f"{last_accuracy:.1%} after {last_step}."
            )
    return " ".join(sentences)


def _confusion(report: AdaptReport) -> Markup | None:
    if not any(map(any, report.confusion)) or len(report.labels) > MAX_CONFUSION:
        return None
    return svg_markup(svg(confusion_figure(report.confusion, report.labels), "Confusion matrix of the test images"))


def _vote_summary(report: AdaptReport) -> str:
    if len(report.neighbors) == 1:
        return (
            "One task of the bank is nearest to yours. The new model keeps the units of the base network that this "
            "task had found useful, and starts from its weights."
        )
    return (
        "These tasks of the bank are nearest to yours. Each voted for the units of the base network that it had found "
        "useful; the new model keeps those with most votes, and starts from the mean of the voters' weights."
    )


def _votes(report: AdaptReport, mask: Mask) -> Iterator[dict[str, Any]]:
    """Yield a picture of each layer's vote; the middle layer is first, because tasks differ there visibly."""
    masks = _voter_masks(report, mask)
    if not masks or len(masks) > MAX_VOTERS:
        return
    layers = list(mask)
    middle = layers[len(layers) // 2]
    for layer in [middle, *(name for name in layers[:MAX_LAYERS] if name != middle)]:
        caption = f"In {layer} a mark is a unit that a task keeps; in orange those of the new model."
        yield {
            "svg": svg_markup(svg(vote_figure(layer, masks, mask), f"The vote in layer {layer}")),
            "caption": caption,
        }


def _voter_masks(report: AdaptReport, mask: Mask) -> dict[str, Mask]:
    """Return the neighbors' masks by name, if the report has them and they fit."""
    masks = {}
    for neighbor in report.neighbors:
        try:
            packed_mask = base64.b64decode(neighbor["masks"], validate=True)
            masks[voter_name(neighbor)] = unpack_mask(packed_mask, mask.sizes)
        except (KeyError, TypeError, ValueError, MetaPruneError):  # masks of an older report, or malformed ones
            continue
    return masks


def _agreement(report: AdaptReport) -> Markup | None:
    voters = len(report.neighbors)
    if not (1 < voters <= MAX_DRAWN_VOTERS and 0 < len(report.vote_agreement) <= MAX_DRAWN_LAYERS):
        return None
    return svg_markup(
        svg(agreement_figure(report.vote_agreement, voters), "How many voters keep the chosen units, by layer")
    )


def _size_summary(report: AdaptReport) -> str:
    return (
        f"At ratio {report.ratio:g}, about {report.ratio:.0%} of the units of every prunable layer are gone: cut out "
        "of the weights, not set to zero, so that file, memory and time shrink with them."
    )


def _sizes(report: AdaptReport) -> list[list[str]]:
    if not report.base_params:
        return []
    rows = [
        ["parameters", f"{report.params:,}", f"{report.base_params:,}", f"{report.params / report.base_params:.1%}"],
        [
            "multiply-adds per image",
            f"{report.macs:,}",
            f"{report.base_macs:,}",
            f"{report.macs / max(1, report.base_macs):.1%}",
        ],
    ]
    if report.latency_ms:
        model_ms, base_ms = report.latency_ms["model"], report.latency_ms["base"]
        rows.append(
            [
                "milliseconds per image",
                f"{model_ms:.2f}",
                f"{base_ms:.2f}",
                f"{model_ms / max(1e-9, base_ms):.1%}",
            ]
        )
    return rows


def _baseline_flops(report: AdaptReport) -> list[list[Any]]:
    if not report.baseline_flops:
        return []
    own_flops = report.training_flops + report.retrieval_flops + report.preparation_flops
    flops_by_way = {"this way, the search of the bank included": own_flops, **report.baseline_flops}
    largest = max(1, *flops_by_way.values())
    return [
        [name, bar(flops / largest), f"{flops / 1e9:,.0f}", f"{flops / max(1, own_flops):.1f}"]
        for name, flops in flops_by_way.items()
    ]


def _seconds(report: AdaptReport) -> list[list[Any]]:
    longest = max(report.seconds.values(), default=0.0) or 1.0
    return [[phase, bar(seconds / longest), f"{seconds:.1f}"] for phase, seconds in report.seconds.items()]


def _lineage(result: AdaptedModel) -> Iterator[str | Markup]:
    report, base = result.report, result.model.config.base_model or {}
    digest = str(base.get("sha256"))[:16]
    yield f"Base: {base.get('architecture')} of {base.get('library')}, sha256 of its weights {digest}…"
    if report.bank:
        yield Markup("Bank: ") + _commit_link(report.bank, str(report.bank.get("name")))
    for neighbor in report.neighbors:
        yield Markup("Voter: ") + _commit_link(neighbor, voter_name(neighbor))
    yield f"Method: {result.model.config.method}, seed {report.seed}, {report.device} ({report.machine})"


def _commit_link(source: dict[str, Any], name: str) -> Markup:
    """Return the name of a bank or a voter, with a link to its commit if it is on the Hub."""
    repo, revision = source.get("repo_id"), str(source.get("revision") or "")
    if not (isinstance(repo, str) and is_repo_id(repo) and revision.isalnum()):
        return Markup("{}").format(name)
    link = Markup('{} (<a href="https://huggingface.co/{}/tree/{}">{}</a> at {})')
    return link.format(name, repo, revision, repo, revision[:12])


def command(report: AdaptReport) -> str:
    """Return the command line that makes the model again."""
    version, repo, source = str(report.versions.get("hf_metaprune", "")), report.bank.get("repo_id"), report.source
    places = {
        "BANK": None if repo else report.bank.get("name"),
        "DATA": None if is_repo_id(source) else source,
    }
    if report.unlabeled_images:
        places["PHOTOS"] = quantity(report.unlabeled_images, "photo") + " without labels"
    comments = [f"# {place}: your copy of {' '.join(str(name).split())}" for place, name in places.items() if name]
    words = ["hf-metaprune", "adapt", str(repo or "BANK"), source if is_repo_id(source) else "DATA", "--out", "MODEL"]
    if repo and report.bank.get("revision"):
        words += ["--revision", str(report.bank["revision"])]
    for name in [name for name in report.given if name in OPTION_NAMES]:
        words += _flag(name, report.given[name])
    if report.unlabeled_images:
        words += ["--unlabeled", "PHOTOS"]
    if "seed" not in report.given:
        words += ["--seed", str(report.seed)]
    line = " ".join(shlex.quote(" ".join(word.split())) for word in words)
    package = f"hf-metaprune=={version}" if VERSION_PATTERN.fullmatch(version) else "hf-metaprune"
    return "\n".join([f"pip install {package}", *comments, line])


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    items = value if isinstance(value, list) else [value]
    return [f"--{flag}", ",".join("" if item is None else str(item) for item in items)]
