"""Sliced models on disk: format version 1 (config, sliced tensors with a telling header, image processor)."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..data.preprocessing import Preprocessing
from ..data.task import check_labels
from ..errors import BaseMismatchError, DataError, FormatError, OptionError, reason
from ..files.layout import BANK_FILE, CONFIG, SCORES, WEIGHTS
from ..files.storage import read_json
from .configuration import MetaPrunedConfig
from .modeling import MetaPrunedForImageClassification
from .score_file import load_scores
from .weight_file import check_metadata, header_metadata, write_weights
from .weights import load_weights, unreadable

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

CONFIG_KEYS = {f.name for f in dataclasses.fields(MetaPrunedConfig)} | {"model_type", "architectures", "dtype"}
"""What is read of a stranger's config; transformers has more keys, which choose kernels, quantizers and code."""


def check_dtype(dtype: str) -> None:
    """Refuse a storage type that does not exist.

    Raises:
        OptionError: names those that do.
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype {dtype!r}: must be one of {', '.join(DTYPES)}")


def save_model(model: MetaPrunedForImageClassification, folder: Path, dtype: str = "float32") -> None:
    """Write ``config.json``, ``model.safetensors`` and ``preprocessor_config.json`` into an existing folder.

    The score mask of a model that has one goes into ``mask_scores.safetensors``.

    Batch norm statistics are stored in `dtype` like the rest; counters stay integers.

    Raises:
        OptionError: unknown dtype. FormatError: the config has no image preprocessing.
    """
    check_dtype(dtype)
    state = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(DTYPES[dtype])
            if not torch.isfinite(tensor).all():
                raise FormatError(f"{name} has values that are not finite in {dtype}: store it as float32")
        state[name] = tensor.contiguous()
    write_weights(folder, state, model.config, model.score_mask)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    config.save_pretrained(folder)
    Preprocessing.from_config(model.config.preprocessing or {}).processor().save_pretrained(folder)


def check_header(folder: Path, config: MetaPrunedConfig, model: MetaPrunedForImageClassification) -> None:
    """Check the names, shapes and metadata of the stored tensors against an (empty) model, reading the header only.

    Raises:
        FormatError: the first difference, named.
    """
    path = folder / WEIGHTS
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata, names = file.metadata() or {}, set(file.keys())
            stored = {n: (tuple((s := file.get_slice(n)).get_shape()), s.get_dtype()) for n in names}
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error
    expected = model.state_dict()
    if set(expected) != names:
        raise FormatError(f"{path}: tensors {sorted(set(expected) ^ names)[:3]} are missing or too many")
    for name, tensor in expected.items():
        shape, dtype = stored[name]
        if shape != tuple(tensor.shape):
            raise FormatError(f"{path}: tensor {name} has shape {shape}, not {tuple(tensor.shape)}")
        if (dtype in ("F16", "F32", "BF16")) != tensor.is_floating_point():
            raise FormatError(f"{path}: tensor {name} has dtype {dtype}")
    check_metadata(metadata, header_metadata(config), str(path), CONFIG)


def load_config(folder: Path) -> MetaPrunedConfig:
    """The config of a sliced model.

    Raises:
        FormatError: missing, malformed, of another kind, or of a newer format version.
    """
    if (folder / BANK_FILE).exists():
        raise FormatError(
            f"{folder} is a bank, not a model; its models are listed by `hf-metaprune bank show {folder}`"
        )
    values = {key: value for key, value in read_json(folder / CONFIG).items() if key in CONFIG_KEYS}
    if values.get("model_type") != MetaPrunedConfig.model_type:
        raise FormatError(f"{folder / CONFIG} is of model_type {values.get('model_type')!r}, not 'metaprune'")
    try:
        config = MetaPrunedConfig.from_dict(values)
        check_labels([config.id2label[i] for i in range(config.num_labels)])
        config.mask()
        return config
    except DataError as error:
        raise FormatError(f"{folder / CONFIG}: {error}") from error
    except FormatError as error:
        raise type(error)(f"{folder / CONFIG}: {error}") from error
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise FormatError(f"{folder / CONFIG}: {reason(error)}") from error
    except Exception as error:
        if type(error).__name__.startswith("StrictDataclass"):
            raise FormatError(f"{folder / CONFIG}: {' '.join(str(error).split())}") from error
        raise


def load_model(folder: Path, expected: str | None = None) -> MetaPrunedForImageClassification:
    """A sliced model from a folder, checked, in float32 and eval mode.

    Args:
        expected: sha256 of the base it must belong to, if any.

    Raises:
        FormatError: a file is missing, damaged, of a newer version, or does not fit its config.
        BaseMismatchError: it belongs to another base.
    """
    config = load_config(folder)
    found = (config.base_model or {}).get("sha256")
    if expected is not None and found != expected:
        raise BaseMismatchError(f"{folder} belongs to base {str(found)[:12]}..., not to {expected[:12]}...")
    with torch.device("meta"):
        model = MetaPrunedForImageClassification(config)
    check_header(folder, config, model)
    state = load_weights(folder / WEIGHTS)
    model.to_empty(device="cpu")
    model.load_state_dict(state)
    model.place_outputs()
    model.config.dtype = "float32"
    if (folder / SCORES).exists():
        model.score_mask = load_scores(folder / SCORES, model.mask().sizes, str(found))
    return model.eval()
