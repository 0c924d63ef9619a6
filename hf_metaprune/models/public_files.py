"""What of a model's JSON files is published: the values that this library knows, written anew."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..data.preprocessing import Preprocessing
from ..errors import FormatError, reason
from ..files.layout import PREPROCESSOR, SCORES
from ..files.names import TOKEN, is_repo_id, public_source
from ..files.storage import read_json
from .architectures.lookup import find_architecture
from .class_means import from_text, to_text
from .configuration import CONFIG_KEYS, MetaPrunedConfig
from .weights import check_tensor_count, unreadable_file_error

PROCESSOR_KEYS = frozenset(
    {"crop_pct", "crop_size", "data_format", "default_to_square", "feature_extractor_type", "image_mean"}
    | {"image_processor_type", "image_std", "resample", "rescale_factor", "size"}
    | {"do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize"}
)
"""Keys of a ``preprocessor_config.json``."""
TIMM_KEYS = frozenset({"architecture", "global_pool", "label_names", "model_args", "num_classes", "num_features"})
"""Keys of timm's ``config.json``, besides ``pretrained_cfg``."""
PRETRAINED_KEYS = frozenset(
    {"architecture", "classifier", "crop_mode", "crop_pct", "custom_load", "first_conv", "fixed_input_size"}
    | {"input_size", "interpolation", "label_names", "license", "max_input_size", "mean", "min_input_size"}
    | {"num_classes", "pool_size", "std", "tag", "test_crop_pct", "test_input_size"}
    | {"hf_hub_id"}
)
"""Keys of timm's ``pretrained_cfg``; others, such as ``file``, may name places on the machine that wrote it."""
TRANSFORMERS_KEYS = frozenset(
    {"architectures", "dtype", "id2label", "initializer_range", "label2id", "model_type", "num_labels"}
    | {"problem_type", "torch_dtype", "transformers_version"}
)
"""Keys of transformers' ``config.json``, besides the arguments of the network."""
BASE_KEYS = frozenset({"library", "architecture", "model_args", "repo_id", "revision", "sha256", "path"})
"""Keys of the ``base_model`` block of our files."""
IMAGE_KEYS = frozenset(field.name for field in fields(Preprocessing))
"""Keys of a config's ``preprocessing``."""


TRUNK_KEYS = frozenset({"format_version", "hf_metaprune_version", "ratios", "teaching"})
"""Keys of the ``config.json`` of a trunk, besides ``base_model``."""
LABEL_KEYS = frozenset({"id2label", "label2id", "label_names"})
"""Keys with labels: lists of texts, or texts by number and numbers by text."""
SIZE_KEYS = frozenset({"height", "width", "shortest_edge", "longest_edge"})
"""Keys of an image's size in a ``preprocessor_config.json``."""
WORD = re.compile(rf"(?!.*{TOKEN})[\w.+-]{{0,100}}")
"""A value that is one word: no path, no address, no sentence, and no token of the Hub."""
HEADER_KEYS = frozenset({"format", "format_version", "base_model_sha256", "masks_digest", "labels"})
"""Keys of the metadata in the header of our files of tensors; other checks compare the values."""
SCORE_KEYS = HEADER_KEYS - {"masks_digest", "labels"}
"""The same for ``mask_scores.safetensors``."""
TENSOR_KEYS = frozenset({"dtype", "shape", "data_offsets"})
"""Keys of each tensor in the header."""


def is_public(value: Any) -> bool:
    """Return whether a JSON value has only numbers and words, at all levels."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            pending += part
        elif isinstance(part, str) and not WORD.fullmatch(part):
            return False
    return True


def check_public_header(path: Path, content: bytes) -> None:
    """Check that the header of an entry's file of tensors has no metadata but ours, because the file is sent whole.

    Args:
        path: the file.
        content: what was read of it.

    Raises:
        FormatError: it has, or cannot be read.
    """
    try:
        check_tensor_count(path)  # whose reader has checked the structure of the header
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size], object_pairs_hook=_without_repeated_keys)
        metadata = header.pop("__metadata__", {})
        unknown_keys = sorted(metadata.keys() - (SCORE_KEYS if path.name == SCORES else HEADER_KEYS))
        unknown_keys += sorted({key for tensor in header.values() for key in tensor} - TENSOR_KEYS)
        if metadata.get("format") not in ("pt", "np", None):
            unknown_keys.append("format")
    except (OSError, SafetensorError) as error:
        raise unreadable_file_error(path, error) from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: its header cannot be read: {reason(error)}") from error
    if unknown_keys:
        raise FormatError(
            f"{path} has metadata that nobody knows ({unknown_keys[0][:40]}), which would be published: save it again "
            "(load_result and save_pretrained)"
        )


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is there twice")
    return values


def public_json(path: Path, root: Path | None = None) -> bytes:
    """Return what is published of a config or a ``preprocessor_config.json``, in the layout that transformers writes.

    Args:
        path: the file, of a sliced model or of a base.
        root: a folder above the file; no folder between them may be a link.

    Raises:
        FormatError: the file is missing, damaged, too large or no regular file.
        ArchitectureError: the config is of a network that is not supported.
    """
    values = read_json(path, root)
    try:
        return _to_json(_public_processor(values) if path.name == PREPROCESSOR else _public_config(values))
    except (FormatError, ValueError) as error:
        raise FormatError(f"{path} cannot be published: {reason(error)}") from error


def public_trunk(path: Path, root: Path | None = None) -> bytes:
    """Return what is published of the ``config.json`` of a trunk.

    Args:
        path: the file.
        root: a folder above the file; no folder between them may be a link.

    Raises:
        FormatError: the file is missing, damaged, too large or no regular file.
    """
    values = read_json(path, root)
    try:
        return _to_json(_pick(values, TRUNK_KEYS) | {"base_model": public_base(values.get("base_model"))})
    except ValueError as error:
        raise FormatError(f"{path} cannot be published: {reason(error)}") from error


def _to_json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def public_base(block: Any) -> dict[str, Any]:
    """Return what is published of a ``base_model`` block; a repo that is no id of the Hub, such as a path, is left out.

    Args:
        block: the block, as it was read.
    """
    values = _pick(block, BASE_KEYS - {"repo_id"})
    repo_id = block.get("repo_id") if isinstance(block, dict) else None
    return values | {"repo_id": repo_id if is_repo_id(str(repo_id)) else None}


def _public_processor(values: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {key: _pick(values[key], SIZE_KEYS) for key in ("size", "crop_size") if isinstance(values.get(key), dict)}
    return _pick(values, PROCESSOR_KEYS) | sizes


def _public_config(values: Mapping[str, Any]) -> dict[str, Any]:
    if values.get("model_type") == MetaPrunedConfig.model_type:
        config, dataset = MetaPrunedConfig.from_dict(dict(values)), values.get("dataset")
        known_parts: dict[str, Any] = {"base_model": public_base(values.get("base_model"))}
        known_parts["preprocessing"] = _pick(values.get("preprocessing"), IMAGE_KEYS)
        known_parts["dataset"] = public_source(dataset) or None if isinstance(dataset, str) else None
        id2label = values.get("id2label")
        if isinstance(id2label, dict):
            known_parts["label2id"] = {str(label): number for number, label in config.id2label.items()}
        if config.class_means is not None:
            known_parts["class_means"] = to_text(from_text(config.class_means, config.num_labels))
        if values.get("masks") is not None:
            known_parts["masks"] = config.mask().pack()
            if not is_public(list(known_parts["masks"])):
                raise FormatError("the name of a layer is no word")
        return _pick(values, CONFIG_KEYS) | {key: part for key, part in known_parts.items() if key in values}
    if isinstance(values.get("architecture"), str):
        stored_values = values.get("pretrained_cfg")
        image_values = _pick(stored_values, PRETRAINED_KEYS - {"hf_hub_id"})
        repo_id = stored_values.get("hf_hub_id") if isinstance(stored_values, dict) else None
        image_values |= {"hf_hub_id": repo_id} if is_repo_id(str(repo_id)) else {}
        return _pick(values, TIMM_KEYS) | ({"pretrained_cfg": image_values} if "pretrained_cfg" in values else {})
    names = values.get("architectures")
    class_name = str(names[0]) if isinstance(names, list) and names else ""
    return _pick(values, TRANSFORMERS_KEYS | find_architecture("transformers", class_name).model_args.keys())


def _pick(values: Any, keys: Collection[str]) -> dict[str, Any]:
    """Return the values of some keys, as far as they have numbers and words only; labels may be any texts."""
    if not isinstance(values, dict):
        return {}
    return {
        key: value
        for key, value in values.items()
        if key in keys and (is_public(value) or (key in LABEL_KEYS and _are_labels(value)))
    }


def _are_labels(value: Any) -> bool:
    """Return whether a value is a list of labels, or has labels by number or numbers by label."""
    if isinstance(value, list):
        return all(label is None or isinstance(label, str) for label in value)
    if not isinstance(value, dict):
        return False
    return all(isinstance(item, int) or (key.isdecimal() and isinstance(item, str)) for key, item in value.items())
