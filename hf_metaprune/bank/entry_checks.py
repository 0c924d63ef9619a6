"""Checks of an entry by itself and against its base: its id, its config and its weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import FormatError
from ..models.base_model import BaseModel
from ..models.configuration import MetaPrunedConfig
from ..trunk.trunk import Trunk

MAX_MAGNITUDE_FACTOR = 100.0
"""A tensor's root mean square may be this many times that of the base's tensor."""
SMALL_MAGNITUDE = 1e-2
"""A base's root mean square below this counts as this: training may well move a tensor away from 0."""
MAX_METRICS = 1 << 16  # characters of JSON
_ENCODER = json.JSONEncoder(allow_nan=False)  # made once: an index has a million rows
COMMIT_PATTERN = re.compile(r"[0-9a-f]{40}")
ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")


def check_id(entry_id: str) -> str:
    """Check an entry's id, and return it.

    Raises:
        FormatError: the id could not be a folder's name on every file system.
    """
    if not isinstance(entry_id, str) or not ID_PATTERN.fullmatch(entry_id) or ".." in entry_id:
        raise FormatError(f"entry id {str(entry_id)[:100]!r}: use 1 to 96 of a-z 0-9 . _ - (not starting with . _ -)")
    return entry_id


def check_ratio_and_metrics(ratio: Any, metrics: Any) -> None:
    """Check the ratio and the metrics that an entry states.

    Args:
        ratio: None, or a number in [0, 1].
        metrics: a JSON object of at most `MAX_METRICS` characters.

    Raises:
        FormatError: one of them has another type or is out of range.
    """
    if ratio is not None and not (isinstance(ratio, (int, float)) and 0 <= ratio <= 1):
        raise FormatError(f"ratio {str(ratio)[:40]} must lie between 0 and 1")
    try:
        too_many = isinstance(metrics, dict) and len(metrics) > MAX_METRICS  # each has more than a character
        if not isinstance(metrics, dict) or too_many or len(text := _ENCODER.encode(metrics)) > MAX_METRICS:
            raise ValueError(f"must be an object of at most {MAX_METRICS} characters")
        if "\\ud" in text:  # half of a surrogate pair cannot be written
            json.dumps(metrics, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"metrics: {error}") from error


def check_network(config: MetaPrunedConfig, base: Mapping[str, Any], place: str) -> None:
    """Refuse a config that names the base's weights, but describes another network.

    Args:
        config: the config of an entry.
        base: the ``base_model`` block of the bank.
        place: what the error message calls the config, such as its folder.

    Raises:
        FormatError: the library, the architecture or its arguments differ from those of the base.
    """
    for key in ("library", "architecture", "model_args"):
        base_in_config, base_of_bank = ((block or {}).get(key) for block in (config.base_model, base))
        if json.dumps(base_in_config, sort_keys=True) != json.dumps(base_of_bank, sort_keys=True):
            raise FormatError(f"{place}: its {key} is not that of the base")


def check_magnitudes(tensors: Mapping[str, torch.Tensor], base: BaseModel) -> None:
    """Refuse weights that cannot come from pruning and training the base.

    Args:
        tensors: tensors of a sub-network by their names in the base.
        base: the base.

    The classifier is not checked, because each task has its own. A running mean is measured against the running
    standard deviation, too: a base that was never trained has means of 0, and one batch moves them.

    Raises:
        FormatError: the root mean square of a tensor is more than `MAX_MAGNITUDE_FACTOR` times that of the base's
            tensor, or a variance is below 0.
    """
    classifier_prefix = f"{base.family.classifier_name(base.network)}."
    for name, tensor in tensors.items():
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise FormatError(f"tensor {name} has variances below 0")
        base_tensor = base.state.get(name)
        if base_tensor is None or name.startswith(classifier_prefix) or not tensor.is_floating_point():
            continue
        magnitude, base_magnitude = (values.double().square().mean().sqrt().item() for values in (tensor, base_tensor))
        if name.endswith("running_mean"):
            variance = base.state[name.removesuffix("mean") + "var"]
            base_magnitude = max(base_magnitude, variance.double().mean().sqrt().item())
        # a variance grows with the square of the weights before it
        factor = MAX_MAGNITUDE_FACTOR ** (2 if name.endswith("running_var") else 1)
        if not magnitude <= factor * max(base_magnitude, SMALL_MAGNITUDE):
            raise FormatError(
                f"tensor {name} is far out: its root mean square is {magnitude:.3g}, the base's {base_magnitude:.3g}"
            )


def check_trunk(trunk: Trunk, place: str) -> None:
    """Refuse a trunk whose weights or statistics cannot come from its base; `place` begins the error message.

    Raises:
        FormatError: as `check_magnitudes`.
    """
    try:
        for tensors in (trunk.weights, *trunk.statistics.values()):
            check_magnitudes(tensors, trunk.base)
    except FormatError as error:
        raise FormatError(f"{place}: {error}") from error


def is_nearly_equal(ratio: Any, other_ratio: Any) -> bool:
    """Return whether two ratios are the same up to float32: another program may have rounded one of them."""
    return (
        isinstance(ratio, float)
        and isinstance(other_ratio, (int, float))
        and math.isclose(ratio, other_ratio, rel_tol=1e-6)
    )
