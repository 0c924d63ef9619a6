"""Model and dataset cards as the Hub reads them: front matter, its faults, and the tags made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import yaml  # type: ignore[import-untyped]

_BLOCK = re.compile(r"\A\s*---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_ARXIV = re.compile(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_KNOWN = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause "
    "bsd-3-clause cc cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-3.0 cc-by-nc-4.0 "
    "cc-by-nd-4.0 cc-by-nc-nd-4.0 cc-by-nc-sa-4.0 cdla-permissive-2.0 epl-2.0 gemma gpl gpl-2.0 gpl-3.0 agpl-3.0 isc "
    "lgpl lgpl-2.1 lgpl-3.0 llama2 llama3 mpl-2.0 odc-by openrail++ pddl unlicense wtfpl zlib unknown other"
)
LICENSES = frozenset(_KNOWN.split())
_STRINGS = ("library_name", "pipeline_tag", "license_name", "license_link", "pretty_name")
_LISTS = ("tags", "datasets", "metrics", "task_categories", "task_ids", "size_categories")


@lru_cache(maxsize=8192)
def _parsed(text: str) -> str:
    """The front matter as JSON text (cached values must not be changed by a reader)."""
    block = _BLOCK.match(text)
    if block is None:
        return "null"
    return json.dumps(yaml.load(block["yaml"], Loader=_LOADER), default=str)


def front_matter(text: str) -> Any:
    """The YAML block at the top of a card, parsed; None without one. Raises yaml.YAMLError."""
    return json.loads(_parsed(text))


def card_data(text: str | None) -> dict[str, Any] | None:
    """The metadata of a card, or None where there is none that can be read."""
    try:
        data = front_matter(text) if text is not None else None
    except yaml.YAMLError:
        return None
    return data if isinstance(data, dict) else None


def check(text: str) -> tuple[list[str], list[str]]:
    """The errors and the warnings of a card."""
    try:
        data = front_matter(text)
    except yaml.YAMLError as error:
        return [f"YAML Metadata Error: {error}"], []
    if not data:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return ["YAML metadata must be a mapping"], []
    return list(_faults(data)), []


def _faults(data: dict[str, Any]) -> Iterable[str]:
    for key in _STRINGS:
        if key in data and not isinstance(data[key], str):
            yield f'"{key}" must be a string'
    for key in _LISTS:
        value = data.get(key, [])
        if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            yield f'"{key}" must be an array of strings'
    for name in _listed(data.get("license")):
        if name not in LICENSES:
            yield f'"license" must be one of {sorted(LICENSES)}'
    for name in _listed(data.get("base_model")):
        if not (isinstance(name, str) and name.count("/") <= 1):
            yield f'"base_model" with value {name!r} is not valid. Use a model id from https://hf.co/models.'
    if "model-index" in data:
        yield from _index_faults(data["model-index"])


def _index_faults(index: Any) -> Iterable[str]:
    if not isinstance(index, list):
        yield '"model-index" must be an array'
        return
    for i, model in enumerate(index):
        if not (isinstance(model, dict) and isinstance(model.get("name"), str)):
            yield f'"model-index[{i}].name" is required'
            continue
        for j, result in enumerate(model.get("results") or []):
            where = f"model-index[{i}].results[{j}]"
            if not (result.get("task") or {}).get("type"):
                yield f'"{where}.task.type" is required'
            dataset = result.get("dataset") or {}
            yield from (f'"{where}.dataset.{key}" is required' for key in ("type", "name") if not dataset.get(key))
            for k, metric in enumerate(result.get("metrics") or []):
                missing = [key for key in ("type", "value") if metric.get(key) is None]
                yield from (f'"{where}.metrics[{k}].{key}" is required' for key in missing)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def tags(kind: str, text: str | None, paths: Iterable[str]) -> list[str]:
    """The tags of a repository, in the Hub's order as far as it is known."""
    data = card_data(text) or {}
    all_tags: list[str] = []
    if kind == "datasets":
        for key in ("task_categories", "task_ids", "language", "size_categories"):
            all_tags += [f"{key}:{value}" for value in _listed(data.get(key))]
    else:
        all_tags += _listed(data.get("library_name"))
        all_tags += ["safetensors"] * any(path.endswith(".safetensors") for path in paths)
    all_tags += _listed(data.get("pipeline_tag"))
    all_tags += ["model-index"] * bool(data.get("model-index"))
    all_tags += _listed(data.get("tags"))
    all_tags += _listed(data.get("language")) if kind != "datasets" else []
    all_tags += [f"dataset:{name}" for name in _listed(data.get("datasets"))]
    all_tags += [f"arxiv:{number}" for number in _ARXIV.findall(text or "")]
    all_tags += _base_tags(data)
    all_tags += [f"license:{name}" for name in _listed(data.get("license"))]
    return list(dict.fromkeys(str(tag) for tag in [*all_tags, "region:us"]))


def _base_tags(data: dict[str, Any]) -> list[str]:
    bases, relation = _listed(data.get("base_model")), data.get("base_model_relation", "finetune")
    return [f"base_model:{base}" for base in bases] + [f"base_model:{relation}:{base}" for base in bases]
