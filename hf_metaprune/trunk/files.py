"""A trunk's folder in a bank: ``config.json`` and ``model.safetensors`` (format version 2)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ..errors import BaseMismatchError, FormatError, named_errors
from ..files.layout import CONFIG, TRUNK_VERSION, WEIGHTS
from ..files.storage import read_json, write_bytes, write_json
from ..masks.mask import Mask, keep_count
from ..models.base_model import BaseModel
from ..models.saving import DTYPES, check_dtype
from ..models.weight_file import check_tensors
from ..models.weights import MAX_TENSORS, load_weights, sort_metadata
from ..version import __version__
from .decoder import Decoder
from .trunk import Trunk, trunk_tensors

MAX_RATIOS = 100
"""Most ratios with statistics of their own."""
ORDER, TENSOR, STATISTIC, DECODER = "order.", "network.", "statistics.", "decoder."
"""Prefixes of tensors: the order of a layer's units, a weight, and a statistic of the ratio with a number."""


def save_trunk(trunk: Trunk, folder: Path, dtype: str = "float16") -> None:
    """Write a trunk into an existing folder.

    Args:
        trunk: the trunk.
        folder: an existing folder.
        dtype: a name of `DTYPES`, in which the weights are stored; statistics are stored in float32.

    Raises:
        OptionError: the dtype is unknown.
        FormatError: a weight is not finite in `dtype`.
    """
    check_dtype(dtype)
    tensors = {TENSOR + name: tensor.detach().to("cpu", DTYPES[dtype]) for name, tensor in trunk.weights.items()}
    if unsound_names := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise FormatError(f"{min(unsound_names)} has values that are not finite in {dtype}: store it as float32")
    tensors |= {ORDER + layer: torch.as_tensor(units, dtype=torch.int32) for layer, units in trunk.order.items()}
    for number, ratio in enumerate(trunk.ratios):
        decoder = trunk.decoders[ratio]
        parts = {"weight": decoder.weight, "bias": decoder.bias}
        tensors |= {f"{DECODER}{number}.{n}": t.detach().to("cpu", DTYPES[dtype]) for n, t in parts.items()}
        statistics = trunk.statistics[ratio]
        tensors |= {f"{STATISTIC}{number}.{name}": tensor.detach().cpu().float() for name, tensor in statistics.items()}
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, _metadata(trunk.base))
    write_bytes(folder / WEIGHTS, sort_metadata(content))
    config = {
        "format_version": TRUNK_VERSION,
        "hf_metaprune_version": __version__,
        "base_model": trunk.base.identity(),
        "ratios": list(trunk.ratios),
        "teaching": dict(trunk.facts),
    }
    write_json(folder / CONFIG, config)


def load_trunk(folder: Path, base: BaseModel) -> Trunk:
    """Read a trunk, which may be anybody's, and check it against its base.

    Args:
        folder: folder of the trunk.
        base: the base that it must belong to.

    Raises:
        FormatError: a file is missing, damaged, or of a newer version; the order of a layer is no permutation of its
            units; or a tensor is missing, unexpected or of another shape.
        BaseMismatchError: the trunk belongs to another base.
    """
    config, path = read_json(folder / CONFIG), folder / WEIGHTS
    version, identity = config.get("format_version"), config.get("base_model")
    if type(version) is not int or version != TRUNK_VERSION:
        advice = "upgrade with `pip install -U hf-metaprune`"
        raise FormatError(f"{folder} has format version {version!r:.40}, not {TRUNK_VERSION}: {advice}")
    sha256 = identity.get("sha256") if isinstance(identity, dict) else None
    if sha256 != base.sha256:
        raise BaseMismatchError(f"{folder} is a trunk of base {str(sha256)[:12]}..., not of {base.sha256[:12]}...")
    ratios = _check_ratios(config.get("ratios"), folder)
    with named_errors(folder):
        expected = _expected_tensors(base, ratios)
    metadata = check_tensors(path, expected)  # before anything is made of a stranger's file
    if metadata.get("base_model_sha256") != base.sha256:
        raise BaseMismatchError(f"{path} is of another base than {CONFIG}")
    if metadata != _metadata(base):
        raise FormatError(f"{path}: the metadata of its header is not that of a trunk")
    tensors = load_weights(path)
    order = {layer: _check_order(tensors[ORDER + layer].numpy(), f"{path}: layer {layer}") for layer in base.sizes}
    statistics = {ratio: _select(tensors, f"{STATISTIC}{number}.") for number, ratio in enumerate(ratios)}
    facts = config.get("teaching")
    decoders = {ratio: Decoder(**_select(tensors, f"{DECODER}{number}.")) for number, ratio in enumerate(ratios)}
    facts = facts if isinstance(facts, dict) else {}
    return Trunk(base, order, _select(tensors, TENSOR), statistics, decoders, facts)


def _metadata(base: BaseModel) -> dict[str, str]:
    return {"format": "pt", "format_version": str(TRUNK_VERSION), "base_model_sha256": base.sha256}


def _expected_tensors(base: BaseModel, ratios: Sequence[float]) -> dict[str, torch.Tensor]:
    """Return empty tensors as a trunk's file must have them; their shapes do not depend on the order of units."""
    expected = {
        ORDER + layer: torch.empty(size, dtype=torch.int32, device="meta") for layer, size in base.sizes.items()
    }
    for number, ratio in enumerate(ratios):
        weights, statistics, decoder = trunk_tensors(base, _first_units(base, ratio))
        if number == 0:
            expected |= {TENSOR + name: tensor for name, tensor in weights.items()}
            n_tensors = len(expected) + len(ratios) * (len(statistics) + len(decoder))
            if n_tensors > MAX_TENSORS:  # each takes its time
                raise FormatError(f"a trunk of {n_tensors} tensors; at most {MAX_TENSORS} are read")
        expected |= {f"{STATISTIC}{number}.{name}": tensor for name, tensor in statistics.items()}
        expected |= {f"{DECODER}{number}.{name}": tensor for name, tensor in decoder.items()}
    return expected


def _first_units(base: BaseModel, ratio: float) -> Mask:
    return Mask({layer: np.arange(keep_count(size, ratio)) for layer, size in base.sizes.items()}, base.sizes)


def _select(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_ratios(ratios: Any, folder: Path) -> list[float]:
    """Return the ratios of a config, checked: rising numbers between 0 and 1."""
    sound = isinstance(ratios, list) and 0 < len(ratios) <= MAX_RATIOS and all(type(r) in (int, float) for r in ratios)
    rising = sound and ratios[0] >= 0 and ratios[-1] < 1 and all(a < b for a, b in itertools.pairwise(ratios))
    if not rising:  # as comparisons with NaN are false, it is refused, too
        raise FormatError(f"{folder / CONFIG}: ratios must be 1 to {MAX_RATIOS} rising numbers from 0 to 1")
    return [float(ratio) for ratio in ratios]


def _check_order(units: np.ndarray, place: str) -> np.ndarray:
    """Return the order of a layer's units, checked."""
    order = units.astype(np.int64)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise FormatError(f"{place}: its order is no permutation of {len(order)} units")
    return order
