"""The options as typed keyword arguments. Made from `config.py` by scripts/make_overrides.py: do not edit."""

from __future__ import annotations

from typing import Literal, TypedDict


class SizeOverrides(TypedDict, total=False):
    """How large a model is."""

    ratio: float | None
    max_params: int | None
    max_macs: int | None
    max_latency_ms: float | None
    split: Literal["layer", "global"] | None
    layer_ratios: tuple[str, ...] | None
    round_to: int | None


class AdaptOverrides(SizeOverrides, total=False):
    """Fields of `AdaptOptions`."""

    strategy: Literal["auto", "mvp", "smsp", "trunk", "no-bank", "random"] | None
    preset: Literal["default", "paper"] | None
    prune_stem: bool | None
    neighbors: int | None
    by: str | None
    vote: Literal["sample", "top"] | None
    votes_per_owner: int | None
    tau: float | None
    weighted: bool | None
    normalize: Literal["layer", "global", "none"] | None
    activations: float | None
    weights: Literal["auto", "neighbors", "base", "trunk"] | None
    head: Literal["auto", "ridge", "stitched", "decoded", "random"] | None
    class_votes: bool | None
    statistics: Literal["auto", "own", "new", "moving"] | None
    leep_samples: int | None
    evaluation_share: float | None
    compare: bool | None
    image_column: str | None
    label_column: str | None
    synsets: tuple[str | None, ...] | None
    seed: int | None
    device: str | None


class TrainingOverrides(TypedDict, total=False):
    """Fields of `TrainingOptions`."""

    steps: int | None
    batch_size: int | None
    optimizer: Literal["sgd", "adamw"] | None
    lr: float | None
    momentum: float | None
    weight_decay: float | None
    schedule: Literal["cosine", "constant"] | None
    warmup_steps: int | None
    ema: float | None
    start_share: float | None
    mixup: float | None
    label_smoothing: float | None
    loss: Literal["labels", "features"] | None
    distill_weight: float | None
    distill_temperature: float | None
    clip_norm: float | None
    freeze_stem: bool | None
    flip: bool | None
    shift: float | None
    precision: Literal["auto", "fp32", "bf16"] | None
    eval_steps: tuple[int, ...] | None
    patience: int | None


class Overrides(AdaptOverrides, TrainingOverrides, total=False):
    """Fields of both."""
