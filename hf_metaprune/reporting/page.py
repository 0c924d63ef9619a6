"""`report.html`: one file that tells what was made, how good it is, who voted, and how to make it again."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from ..drawing.pages import bar, data_uri, drawn, render, style_sheet
from ..drawing.style import svg
from ..drawing.units import units_figure
from ..errors import MetaPruneError
from ..files.names import is_repo_id
from ..masks.mask import Mask
from ..masks.packing import unpack_mask
from ..text import counted
from .adapted import Adapted
from .figures import MAX_CONFUSION, agreement_figure, confusion_figure, curve_figure, vote_figure
from .report import AdaptReport, voter_name

SHOWN_LABELS = 12
MADE_IN = "to make it"
EXACT = 200
MAX_VOTERS, MAX_LAYERS = 12, 60
"""More voters or layers than these are not drawn one by one."""


def model_page(result: Adapted) -> str:
    """The report of an adapted model as one HTML file: no script, nothing from elsewhere, at most some 100 kB.

    Thumbnails of mistakes are there if the model was made in this process; they are not saved with it.
    """
    return render("report.html", page=_page(result))


def _page(result: Adapted) -> dict[str, Any]:
    report, mask = result.report, result.model.mask()
    return {
        "css": style_sheet(),
        "title": page_title(report.labels),
        "summary": list(summary(report)),
        "tiles": tiles(report),
        "curve": _curve(report),
        "curve_words": _curve_words(report),
        "confusion": _confusion(report),
        "mistakes": [
            {"label": m.label, "predicted": m.predicted, "score": f"{m.score:.0%}", "image": data_uri(m.jpeg)}
            for m in result.mistakes
        ],
        "per_class": [
            [label, bar(share), f"{share:.1%}"]
            for label, share in report.accuracy_per_class.items()
            if share is not None and share == share
        ],
        "neighbors": [
            [voter_name(n), ", ".join(n["labels"]), f"{n['score']:.3f}", f"{n.get('share', 0):.0%}"]
            for n in report.neighbors
        ],
        "vote_words": _vote_words(report),
        "votes": list(_votes(report, mask)),
        "agreement": _agreement(report),
        "size_words": _size_words(report),
        "sizes": _sizes(report),
        "units": drawn(svg(units_figure(mask, mask.sizes), "The units that stay in each layer")),
        "baseline_flops": _baseline_flops(report),
        "seconds": _seconds(report),
        "lineage": list(_lineage(result)),
        "command": command(report),
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        "notes": [*report.notes, *filter(None, [report.skipped_words])],
    }


def page_title(labels: list[str]) -> str:
    """What a model is, by its classes."""
    shown = ", ".join(labels[:SHOWN_LABELS])
    more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    return f"A classifier of {shown}{more}"


def summary(report: AdaptReport) -> Iterator[str]:
    """What came out, in plain words: a sentence or two each."""
    if report.test_images:
        low, high = report.accuracy_interval
        yield (
            f"It recognized {report.accuracy:.1%} of {counted(report.test_images, 'test image')}; with more of "
            f"them it would lie between {low:.0%} and {high:.0%}, with 95% confidence."
        )
    if report.base_params:
        share, macs = report.params / report.base_params, report.macs / max(1, report.base_macs)
        faster = ""
        if report.latency_ms:
            mine, base = report.latency_ms["model"], report.latency_ms["base"]
            faster = f"; an image takes {mine:.1f} ms, where the base takes {base:.1f}, on {report.machine}"
        yield f"It has {share:.1%} of the base network's parameters and needs {macs:.1%} of its arithmetic{faster}."
    if report.train_images:
        helped = len(report.neighbors)
        nearest = "nearest task" if helped == 1 else f"{helped} nearest tasks"
        by = f", with the help of the {nearest} in the bank" if helped else ", without a bank"
        yield f"It was made from {counted(report.train_images, 'image')} in {sum(report.seconds.values()):.0f} s{by}."


def tiles(report: AdaptReport) -> list[tuple[str, str]]:
    """The main figures, each with what it is."""
    found = []
    if report.test_images:
        digits = 1 if report.test_images >= EXACT else 0  # of few images a tenth of a percent says nothing
        found.append((f"{report.accuracy:.{digits}%}", f"recognized, of {counted(report.test_images, 'image')}"))
    if report.base_params:
        found.append((f"{report.params:,}", f"parameters, {report.params / report.base_params:.1%} of the base"))
    if report.latency_ms:
        found.append((f"{report.latency_ms['model']:.1f} ms", "an image, one at a time"))
    if report.seconds:
        found.append((f"{sum(report.seconds.values()):.0f} s", MADE_IN))
    return found


def _curve(report: AdaptReport) -> Markup | None:
    if len(report.accuracy_at_step) < 2:
        return None
    return drawn(svg(curve_figure(report.learning_curves), f"Accuracy by step of fine-tuning. {_curve_words(report)}"))


def _curve_words(report: AdaptReport) -> str:
    told = []
    for name, points in report.learning_curves.items():
        if points:
            (first, start), (last, end) = next(iter(points.items())), list(points.items())[-1]
            told.append(
                f"{name[:1].upper()}{name[1:]}: {start:.1%} after {counted(first, 'step')}, {end:.1%} after {last}."
            )
    return " ".join(told)


def _confusion(report: AdaptReport) -> Markup | None:
    if not any(map(any, report.confusion)) or len(report.labels) > MAX_CONFUSION:
        return None
    return drawn(svg(confusion_figure(report.confusion, report.labels), "Confusion matrix of the test images"))


def _vote_words(report: AdaptReport) -> str:
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
    """A picture of each layer's vote, the middle layer first: there tasks differ, and the eye can still count."""
    masks = _voters(report, mask)
    if not masks or len(masks) > MAX_VOTERS:
        return
    layers = list(mask)
    middle = layers[len(layers) // 2]
    for layer in [middle, *(name for name in layers[:MAX_LAYERS] if name != middle)]:
        said = f"In {layer} a mark is a unit that a task keeps; in orange those of the new model."
        yield {"svg": drawn(svg(vote_figure(layer, masks, mask), f"The vote in layer {layer}")), "caption": said}


def _voters(report: AdaptReport, mask: Mask) -> dict[str, Mask]:
    """The neighbors' masks by name, as far as the report has them and they fit."""
    found = {}
    for neighbor in report.neighbors:
        try:
            packed = base64.b64decode(neighbor["masks"], validate=True)
            found[voter_name(neighbor)] = unpack_mask(packed, mask.sizes)
        except (KeyError, TypeError, ValueError, MetaPruneError):  # of an older report, or a stranger's
            continue
    return found


def _agreement(report: AdaptReport) -> Markup | None:
    voters = len(report.neighbors)
    if voters < 2 or not report.vote_agreement:
        return None
    return drawn(
        svg(agreement_figure(report.vote_agreement, voters), "How many voters keep the chosen units, by layer")
    )


def _size_words(report: AdaptReport) -> str:
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
            "multiply-adds an image",
            f"{report.macs:,}",
            f"{report.base_macs:,}",
            f"{report.macs / report.base_macs:.1%}",
        ],
    ]
    if report.latency_ms:
        mine, base = report.latency_ms["model"], report.latency_ms["base"]
        rows.append(["milliseconds an image", f"{mine:.2f}", f"{base:.2f}", f"{mine / max(1e-9, base):.1%}"])
    return rows


def _baseline_flops(report: AdaptReport) -> list[list[Any]]:
    if not report.baseline_flops:
        return []
    own = report.training_flops + report.retrieval_flops + report.preparation_flops
    ways = {"this way, the search of the bank included": own, **report.baseline_flops}
    most = max(ways.values())
    return [
        [name, bar(flops / most), f"{flops / 1e9:,.0f}", f"{flops / max(1, own):.1f}"] for name, flops in ways.items()
    ]


def _seconds(report: AdaptReport) -> list[list[Any]]:
    most = max(report.seconds.values(), default=0.0) or 1.0
    return [[phase, bar(seconds / most), f"{seconds:.1f}"] for phase, seconds in report.seconds.items()]


def _lineage(result: Adapted) -> Iterator[str | Markup]:
    report, base = result.report, result.model.config.base_model or {}
    digest = str(base.get("sha256"))[:16]
    yield f"Base: {base.get('architecture')} of {base.get('library')}, sha256 of its weights {digest}…"
    if report.bank:
        yield Markup("Bank: ") + _linked(report.bank, str(report.bank.get("name")))
    for neighbor in report.neighbors:
        yield Markup("Voter: ") + _linked(neighbor, voter_name(neighbor))
    yield f"Method: {result.model.config.method}, seed {report.seed}, {report.device} ({report.machine})"


def _linked(thing: dict[str, Any], name: str) -> Markup:
    """A bank or a voter by name, linked to its commit if it is on the Hub."""
    repo, revision = thing.get("repo_id"), str(thing.get("revision") or "")
    if not (isinstance(repo, str) and is_repo_id(repo) and revision.isalnum()):
        return Markup("{}").format(name)
    link = Markup('{} (<a href="https://huggingface.co/{}/tree/{}">{}</a> at {})')
    return link.format(name, repo, revision, repo, revision[:12])


def command(report: AdaptReport) -> str:
    """The command line that makes the model again."""
    version, repo, source = report.versions.get("hf_metaprune", ""), report.bank.get("repo_id"), report.source
    places = {
        "BANK": None if repo else report.bank.get("name"),
        "DATA": None if is_repo_id(source) else source,
    }
    told = [f"# {place}: your copy of {' '.join(str(name).split())}" for place, name in places.items() if name]
    words = ["hf-metaprune", "adapt", str(repo or "BANK"), source if is_repo_id(source) else "DATA", "--out", "MODEL"]
    if repo and report.bank.get("revision"):
        words += ["--revision", str(report.bank["revision"])]
    for name, value in report.given.items():
        words += _flag(name, value)
    if "seed" not in report.given:
        words += ["--seed", str(report.seed)]
    line = " ".join(shlex.quote(" ".join(word.split())) for word in words)
    return "\n".join([f"pip install hf-metaprune=={version}", *told, line])


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    items = value if isinstance(value, list) else [value]
    return [f"--{flag}", ",".join("" if item is None else str(item) for item in items)]
