"""Sliced models on disk: config, sliced tensors with metadata in their header, image processor (format version 1)."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from ..data.preprocessing import Preprocessing
from ..data.task import Task
from ..errors import BaseMismatchError, DataError, FormatError, OptionError, named_errors, reason
from ..files.layout import BANK_FILE, CONFIG, SCORES, WEIGHTS
from ..files.reading import is_present
from ..files.storage import read_json
from .configuration import CONFIG_KEYS, MetaPrunedConfig
from .modeling import MetaPrunedForImageClassification
from .score_file import load_scores
from .weight_file import check_metadata, check_tensors, header_metadata, write_weights
from .weights import load_weights

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def check_dtype(dtype: str) -> None:
    """Refuse a storage type that does not exist.

    Raises:
        OptionError: the dtype is none of `DTYPES`; the message lists them.
    """
    if dtype not in DTYPES:
        raise OptionError(f"dtype {dtype!r}: must be one of {', '.join(DTYPES)}")


def save_model(model: MetaPrunedForImageClassification, folder: Path, dtype: str = "float32") -> None:
    """Write ``config.json``, ``model.safetensors`` and ``preprocessor_config.json`` into an existing folder.

    The score mask of a model that has one goes into ``mask_scores.safetensors``.

    Args:
        model: the model to write.
        folder: an existing folder.
        dtype: a name of `DTYPES`, in which all tensors of floating point are stored; integers stay integers.

    Raises:
        OptionError: the dtype is unknown.
        FormatError: a value is not finite in `dtype`, or the config has no image preprocessing.
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
    """Check the header of a file of weights against an empty model: names, shapes and metadata of the tensors.

    Args:
        folder: folder of the file.
        config: the config in the same folder.
        model: a model of that config; its tensors may be on the meta device.

    Raises:
        FormatError: the file cannot be read, or differs; the message names the first difference.
    """
    path = folder / WEIGHTS
    metadata = check_tensors(path, model.state_dict())
    check_metadata(metadata, header_metadata(config), str(path), CONFIG)


def load_config(folder: Path) -> MetaPrunedConfig:
    """Read the config of a sliced model, and check it.

    Raises:
        FormatError: the config is missing, malformed, of another model type, or of a newer format version.
    """
    if is_present(folder / BANK_FILE):
        raise FormatError(
            f"{folder} is a bank, not a model; its models are listed by `hf-metaprune bank show {folder}`"
        )
    values = {key: value for key, value in read_json(folder / CONFIG).items() if key in CONFIG_KEYS}
    if values.get("model_type") != MetaPrunedConfig.model_type:
        raise FormatError(f"{folder / CONFIG} is of model_type {values.get('model_type')!r}, not 'metaprune'")
    try:
        config = MetaPrunedConfig.from_dict(values)
        Task(tuple(config.id2label[i] for i in range(config.num_labels)), tuple(config.synsets or ()))
        config.mask()
        return config
    except DataError as error:
        raise FormatError(f"{folder / CONFIG}: {error}") from error
    except FormatError as error:
        raise type(error)(f"{folder / CONFIG}: {error}") from error
    except LookupError as error:
        raise FormatError(f"{folder / CONFIG}: a class has no label ({reason(error)})") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{folder / CONFIG}: {reason(error)}") from error


def load_model(folder: Path, expected: str | None = None) -> MetaPrunedForImageClassification:
    """Load a sliced model from a folder, and check it.

    Args:
        folder: a folder that `save_model` or ``save_pretrained`` wrote.
        expected: sha256 of the base that the model must belong to, if any.

    Returns:
        The model on the CPU, in float32 and eval mode.

    Raises:
        FormatError: a file is missing, damaged, of a newer version, or does not fit its config.
        BaseMismatchError: the model belongs to another base.
        OptionError: the path is empty, or too long for a path.
    """
    config = load_config(folder)
    base_sha256 = (config.base_model or {}).get("sha256")
    if expected is not None and base_sha256 != expected:
        raise BaseMismatchError(f"{folder} belongs to base {str(base_sha256)[:12]}..., not to {expected[:12]}...")
    with named_errors(folder / CONFIG):
        Preprocessing.from_config(config.preprocessing or {})
        with torch.device("meta"):
            model = MetaPrunedForImageClassification(config)
    check_header(folder, config, model)
    state = load_weights(folder / WEIGHTS)
    model.load_state_dict(state, assign=True)
    model.place_outputs()
    model.config.dtype = "float32"
    if is_present(folder / SCORES):
        model.score_mask = load_scores(folder / SCORES, model.mask().sizes, str(base_sha256))
    return model.eval()
