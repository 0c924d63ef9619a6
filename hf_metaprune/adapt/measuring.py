"""The report of an adapted model, filled in one place."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ..config import TrainingOptions
from ..data.images import ImageSet
from ..files.names import public_name
from ..masks.mask import Mask
from ..masks.packing import pack_mask
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import count_parameters
from ..reporting.report import AdaptReport
from ..similarity import Neighbor
from ..sizing.cost_model import count_flops, get_cost_model
from ..sizing.timing import latencies_ms
from ..training.hardware import machine_kind, peak_memory_mb
from ..training.loop import TrainingResult
from ..training.record import RunRecord
from .baseline_costs import baseline_flops
from .plan import Plan, as_json
from .voting import agreement, vote_shares


def is_constant(logits: torch.Tensor) -> bool:
    """Whether a model says the same of all images; logits are float (images, labels)."""
    return len(logits) > 1 and bool((logits - logits[:1]).abs().max() < 1e-6)


def make_report(
    model: MetaPrunedForImageClassification,
    plan: Plan,
    training: TrainingOptions,
    result: TrainingResult,
    head: str,
    bank: dict[str, Any],
    logits: torch.Tensor,
) -> AdaptReport:
    """Fill the report of a model that was made by a plan.

    Args:
        training: how the model was trained, and `result` what came of it.
        head: how the model got its classifier.
        bank: what names the bank.
        logits: what the model says of the task's test images, float (n, labels).
    """
    inputs, voters, data, record = plan.inputs, plan.voters, plan.data, plan.record
    device, labels = inputs.device, data.task.labels
    predicted = logits.argmax(1).numpy()
    true = data.evaluation.targets.numpy()
    confusion = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(confusion, (true, predicted), 1)
    tested = confusion.sum(1)
    per_class = np.where(tested, confusion.diagonal() / tested.clip(1), np.nan)
    mask, masks = model.mask(), voters.masks(inputs.sizes)
    overlaps = [mask.iou_per_layer(m) for m in masks]
    image = data.train.images[:1]
    full = inputs.base.whole(labels).eval()
    latency = one_image_ms({"model": model, "base": full}, data.train, device)
    _note_result(record, logits, latency["model"], inputs.options.max_latency_ms)
    costs = get_cost_model(full.config, image)
    shares = vote_shares(mask, masks, voters.weights)
    return AdaptReport(
        accuracy=float((predicted == true).mean()) if len(true) else math.nan,
        evaluated_on=data.evaluation_split,
        accuracy_at_step=result.accuracy_at_step,
        accuracy_per_class={label: float(a) for label, a in zip(labels, per_class, strict=True)},
        confusion=confusion.tolist(),
        labels=list(labels),
        train_images=len(data.train),
        test_images=len(data.evaluation),
        source=public_name(data.source),
        strategy=inputs.options.strategy,
        ratio=model.config.ratio,
        bank=bank,
        neighbors=[_neighbor(n, share, voted) for n, share, voted in zip(voters.neighbors, shares, masks, strict=True)],
        vote_agreement=agreement(mask, masks) if masks else {},
        iou_with_neighbors={name: [round(o[name], 4) for o in overlaps] for name in mask} if masks else {},
        head=head,
        params=count_parameters(model),
        base_params=count_parameters(full),
        macs=count_flops(model, image)[0] // 2,
        base_macs=count_flops(full, image)[0] // 2,
        latency_ms=latency,
        machine=machine_kind(device),
        training_flops=result.flops,
        retrieval_flops=record.retrieval_flops,
        preparation_flops=record.preparation_flops,
        seconds={phase: round(seconds, 3) for phase, seconds in record.seconds.items()},
        emissions=dict(record.energy),
        options=as_json(asdict(inputs.options) | asdict(training)),
        given=plan.given,
        skipped_images=data.skipped,
        baseline_flops=baseline_flops(inputs.base, costs, model.config.ratio, training, len(data.train)),
        losses=[round(loss, 5) for loss in result.losses],
        peak_memory_mb=peak_memory_mb(device),
        seed=inputs.options.seed,
        versions=versions(),
        device=str(device),
        notes=record.notes,
    )


def _note_result(record: RunRecord, logits: torch.Tensor, took: float, bound: float | None) -> None:
    """Say what the user should know of the finished model."""
    if is_constant(logits):
        record.note(
            "every image gets the same answer: what stays of the network does not look at it (a class token "
            "without attention, say); a larger size, or layer_ratios that keep some heads, does better"
        )
    if bound is not None and took > bound:
        record.note(f"an image took {took:.2f} ms at the end, more than the {bound:g} that were asked for")


def _neighbor(neighbor: Neighbor, share: float, mask: Mask) -> dict[str, Any]:
    packed = base64.b64encode(pack_mask(mask)).decode()
    facts = {"score": round(neighbor.score, 6), "share": round(share, 4), "masks": packed}
    return neighbor.entry.reference() | facts


def one_image_ms(
    models: Mapping[str, MetaPrunedForImageClassification], images: ImageSet, device: torch.device
) -> dict[str, float]:
    """Median milliseconds of one of the images, one at a time, by each model."""
    pixels = images.preprocessing.normalize(images.images[:1]).to(device)
    found = latencies_ms([model.to(device) for model in models.values()], pixels)
    return {name: round(ms, 3) for name, ms in zip(models, found, strict=True)}


def versions() -> dict[str, Any]:
    """Versions of the libraries that results depend on."""
    import timm
    import transformers

    from ..version import __version__

    return {
        "hf_metaprune": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
    }
