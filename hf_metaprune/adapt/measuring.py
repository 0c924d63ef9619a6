"""The measurements of an adapted model, and its report."""

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
from ..reporting.misclassified import Mistake, worst_mistakes
from ..reporting.report import AdaptReport
from ..similarity import Neighbor
from ..sizing.cost_model import count_flops, get_cost_model
from ..sizing.timing import latencies_ms
from ..training.forward import predict_logits
from ..training.hardware import machine_kind, peak_memory_mb
from ..training.loop import TrainingResult
from ..training.record import RunRecord
from .baseline_costs import baseline_flops
from .plan import Plan, json_values
from .voting import agreement, vote_shares


def is_constant(logits: torch.Tensor) -> bool:
    """Return whether a model gives the same logits, float (images, labels), for all images."""
    return len(logits) > 1 and bool((logits - logits[:1]).abs().max() < 1e-6)


def measure(
    model: MetaPrunedForImageClassification,
    plan: Plan,
    training: TrainingOptions,
    training_result: TrainingResult,
    *,
    head: str,
    bank: dict[str, Any],
    n_forwarded: int,
) -> tuple[AdaptReport, list[Mistake]]:
    """Measure a model that was made by a plan: fill its report, and write the accuracy into its config.

    Args:
        model: the trained model.
        plan: the plan it was made by.
        training: how the model was trained.
        training_result: what the training measured.
        head: how the model got its classifier, in words.
        bank: the values that name the bank in the report.
        n_forwarded: number of images that went through the model before training.

    Returns:
        The report, and the test images that the model classifies wrongly, the most certain ones first.
    """
    data = plan.data
    plan.record.preparation_flops += n_forwarded * count_flops(model, data.train.images[:1])[0]
    logits = predict_logits(model, data.evaluation, plan.inputs.device)
    report = _make_report(model, plan, training, training_result, head, bank, logits)
    model.config.dataset = report.source
    if report.test_images:
        model.config.metrics = {"accuracy": round(report.accuracy, 4), "test_images": report.test_images}
    return report, worst_mistakes(logits, data.evaluation, data.task.labels)


def _make_report(
    model: MetaPrunedForImageClassification,
    plan: Plan,
    training: TrainingOptions,
    result: TrainingResult,
    head: str,
    bank: dict[str, Any],
    logits: torch.Tensor,
) -> AdaptReport:
    """Fill the report of a model; `logits` are its logits for the test images, float (images, labels)."""
    inputs, voters, data, record = plan.inputs, plan.voters, plan.data, plan.record
    device, labels = inputs.device, data.task.labels
    predictions = logits.argmax(1).numpy()
    targets = data.evaluation.targets.numpy()
    confusion = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(confusion, (targets, predictions), 1)
    images_per_class = confusion.sum(1)
    accuracy_per_class = np.where(images_per_class, confusion.diagonal() / images_per_class.clip(1), np.nan)
    mask, masks = model.mask(), voters.masks(inputs.sizes)
    overlaps = [mask.iou_per_layer(m) for m in masks]
    image = data.train.images[:1]
    full = inputs.base.whole(labels).eval()
    latency = measure_latencies({"model": model, "base": full}, data.train, device)
    _note_result(record, logits, latency["model"], inputs.options.max_latency_ms)
    costs = get_cost_model(full.config, image)
    shares = vote_shares(mask, masks, voters.vote_weights)
    return AdaptReport(
        accuracy=float((predictions == targets).mean()) if len(targets) else math.nan,
        evaluated_on=data.evaluation_split,
        accuracy_at_step=result.accuracy_at_step,
        baselines=_teacher_curve(plan),
        accuracy_per_class={label: float(a) for label, a in zip(labels, accuracy_per_class, strict=True)},
        confusion=confusion.tolist(),
        labels=list(labels),
        train_images=len(data.train),
        unlabeled_images=len(inputs.photos) if inputs.photos is not None else 0,
        test_images=len(data.evaluation),
        source=public_name(data.source),
        strategy=inputs.options.strategy,
        ratio=model.config.ratio,
        bank=bank,
        neighbors=[_neighbor_facts(*facts) for facts in zip(voters.neighbors, shares, masks, strict=True)],
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
        options=json_values(asdict(inputs.options) | asdict(training)),
        given=plan.given,
        skipped_images=data.skipped_images,
        baseline_flops=baseline_flops(inputs.base, costs, model.config.ratio, training, len(data.train)),
        losses=[round(loss, 5) for loss in result.losses],
        peak_memory_mb=peak_memory_mb(device),
        seed=inputs.options.seed,
        versions=library_versions(),
        device=str(device),
        notes=record.notes,
    )


def _teacher_curve(plan: Plan) -> dict[str, dict[int, float]]:
    """Return the learning curve of the base that taught the model, by its name; nothing if none was measured."""
    if plan.teacher is None or math.isnan(plan.teacher.accuracy):
        return {}
    return {"the whole base, untrained": {0: plan.teacher.accuracy}}


def _note_result(record: RunRecord, logits: torch.Tensor, latency_ms: float, max_latency_ms: float | None) -> None:
    """Tell the user if the model ignores its images, or is slower than the budget."""
    if is_constant(logits):
        record.note(
            "every image gets the same answer, because the units that stay do not use the image (for example, a class "
            "token without attention): choose a larger size, or layer_ratios that keep some heads"
        )
    if max_latency_ms is not None and latency_ms > max_latency_ms:
        record.note(f"an image took {latency_ms:.2f} ms at the end, more than max_latency_ms={max_latency_ms:g}")


def _neighbor_facts(neighbor: Neighbor, share: float, mask: Mask) -> dict[str, Any]:
    """Return the report's values about a neighbor, which has a share of the vote."""
    packed_mask = base64.b64encode(pack_mask(mask)).decode()
    facts = {"score": round(neighbor.score, 6), "share": round(share, 4), "masks": packed_mask}
    return neighbor.entry.reference() | facts


def measure_latencies(
    models: Mapping[str, MetaPrunedForImageClassification], images: ImageSet, device: torch.device
) -> dict[str, float]:
    """Measure how long models take for one image.

    Args:
        models: models in eval mode, by name; they are moved to `device`.
        images: images, of which the first is used.
        device: where to measure.

    Returns:
        The median time in milliseconds, by name.
    """
    pixels = images.preprocessing.normalize(images.images[:1]).to(device)
    latencies = latencies_ms([model.to(device) for model in models.values()], pixels)
    return {name: round(ms, 3) for name, ms in zip(models, latencies, strict=True)}


def library_versions() -> dict[str, Any]:
    """Return the versions of the libraries that results depend on, by name."""
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
