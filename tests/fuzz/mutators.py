"""Mutations of any bytes, and of any JSON value; all randomness is the caller's."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

BytesMutation = Callable[[Random, bytes], bytes]

DEEP = 20_000
RAW = {
    "@deep list@": "[" * DEEP + "]" * DEEP,
    "@deep object@": '{"a":' * DEEP + "1" + "}" * DEEP,
    "@list below the limit@": "[" * 600 + "]" * 600,
    "@object below the limit@": '{"a":' * 600 + "1" + "}" * 600,
    "@digits@": "9" * 5000,
    "@small digits@": "1" * 64,
    "@infinity@": "1e999",
    "@half a pair@": '"\\ud800"',
}
"""What stands in JSON text for what Python cannot write, or not without a fault of its own."""

NUMBERS: list[Any] = [
    *(-1, 0, 1, 2, 7, 31, 255, 4096, 65536, 1 << 20, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, -(10**30)),
    *(-0.5, 0.3, 1.0, 1.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
]
TEXTS = [
    *("", " ", "x", "\0", "a\nb", "a\rb\tc", "\u202eabc", "\ufeff", "é", "\U0001f600", "x" * 300, "x" * 70_000),
    *("..", ".", "/", "~", "../outside", "../../outside", "/etc/passwd", "C:\\outside", "tasks/../../outside", "base"),
    *("a" * 64, "0" * 64, "g" * 64, "a" * 40, "main", "eve/model", "eve/../x", "--", "file:///etc/passwd"),
    *("http://127.0.0.1:9/x", "null", "true", "nan", "-1", "1e9", "resnet18", "resnet152", "vgg11", "hf-hub:eve/x"),
    *("timm", "transformers", "ResNetForImageClassification", "metaprune", "vit", "float16", "int8", "nn", "AAAA"),
    *("%s%n{0}{x}", "<script>", "|`*_", "${HOME}", "torch.nn", "os.system"),
]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": [1]}}, [1] * 2000, ["x", "x"]]


def nasty(rng: Random) -> Any:
    """A value that a reader may not expect."""
    return copy.deepcopy(rng.choice([rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(OTHERS), rng.choice([*RAW])]))


def mutate_value(rng: Random, value: Any, new: Callable[[Random], Any] = nasty) -> Any:
    """A copy of a JSON object or list with one to three places changed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _edit(rng, value, new)
    return value


def _edit(rng: Random, value: Any, new: Callable[[Random], Any]) -> Any:
    """Walk down to some place, and change what is there."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys:
        return new(rng)
    key = rng.choice(keys)
    below = value[key]
    if isinstance(below, (dict, list)) and below and rng.random() < 0.7:
        value[key] = _edit(rng, below, new)
        return value
    action = rng.choice(("replace", "replace", "replace", "delete", "add", "rename", "swap", "wrap", "unwrap", "grow"))
    if action == "replace":
        value[key] = new(rng)
    elif action == "delete":
        del value[key]
    elif action == "wrap":
        value[key] = rng.choice([[below], {"x": below}, str(below), [below, below]])
    elif action == "unwrap":
        return below
    elif action == "swap":
        other = rng.choice(keys)
        value[key], value[other] = value[other], below
    elif isinstance(value, list):
        value[key:key] = [new(rng)] if action == "add" else [copy.deepcopy(below)] * rng.choice((1, 5, 300))
    else:
        value[_key(new(rng))] = below if action == "rename" else new(rng)
        if action == "rename":
            del value[key]
    return value


def _key(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def json_bytes(rng: Random, value: Any) -> bytes:
    """A JSON value as text, with what `RAW` stands for, and now and then a key that is there twice."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.9)
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}":', f'"{mark[:2]}":').replace(f'"{mark}"', raw)
    if rng.random() < 0.05 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + ", " + text[1:-1].replace("1", "2") + "}"
    return text.encode("utf-8", "surrogatepass")


def flood(rng: Random, value: Any) -> Any:
    """A copy of a JSON object with so much in one place that its file has a few megabytes."""
    place = value = copy.deepcopy(value)
    while rng.random() < 0.5 and (inner := [v for v in place.values() if isinstance(v, dict) and v]):
        place = rng.choice(inner)
    key = rng.choice([*place, "new"])
    item = rng.choice([*place.values(), 0, "x", [], {}, None, 0.5])
    count = min(250_000, 4_000_000 // len(json.dumps(item)))
    lists = [item] * count, [[item] * 100] * (count // 100)
    place[key] = rng.choice([*lists, {f"{key}{i}": item for i in range(count // 3)}, "x" * 4_000_000])
    return value


def mutate_json(rng: Random, content: bytes) -> bytes:
    """A JSON file with other values, or other bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, content)
    if rng.random() < 0.01:
        return json_bytes(rng, flood(rng, json.loads(content)))
    return json_bytes(rng, mutate_value(rng, json.loads(content)))


def mutate_bytes(rng: Random, content: bytes) -> bytes:
    """Bytes altered once to three times, most often near the beginning or the end, where formats say what they are."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(BYTE_MUTATIONS)(rng, content)
    return content


def _place(rng: Random, content: bytes) -> int:
    size = len(content)
    near = min(size, rng.choice((8, 64, 1024, 1 << 30)))
    place = rng.randrange(near + 1)
    return place if rng.random() < 0.5 else size - place


def _flip(rng: Random, content: bytes) -> bytes:
    output = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 16))):
        if output:
            output[min(_place(rng, content), len(output) - 1)] ^= 1 << rng.randrange(8)
    return bytes(output)


def _overwrite(rng: Random, content: bytes) -> bytes:
    start, new = _place(rng, content), _some_bytes(rng)
    return content[:start] + new + content[start + len(new) :]


def _insert(rng: Random, content: bytes) -> bytes:
    start = _place(rng, content)
    return content[:start] + _some_bytes(rng) + content[start:]


def _delete(rng: Random, content: bytes) -> bytes:
    start = _place(rng, content)
    return content[:start] + content[start + rng.choice((1, 2, 8, 100, 10_000)) :]


def _truncate(rng: Random, content: bytes) -> bytes:
    return content[: _place(rng, content)]


def _duplicate(rng: Random, content: bytes) -> bytes:
    start = _place(rng, content)
    part = content[start : start + rng.choice((1, 8, 100, 10_000))]
    return content[:start] + part * rng.choice((1, 2, 50)) + content[start:]


def _splice(rng: Random, content: bytes) -> bytes:
    """The beginning of the file, then a later or an earlier part of it."""
    return content[: _place(rng, content)] + content[_place(rng, content) :]


def _some_bytes(rng: Random) -> bytes:
    number = rng.choice((0, 1, 127, 255, 2**16, 2**31, 2**32 - 1, 2**63, 2**64 - 1))
    kinds = [number.to_bytes(8, "little"), bytes([rng.randrange(256)]) * rng.choice((1, 3, 40)), b"\0" * 64]
    return rng.choice([*kinds, b"PAR1", b'"', b"{", b"[" * 5000, b"\xff\xfe", b"\n---\n", b"\xed\xa0\x80"])


BYTE_MUTATIONS: list[BytesMutation] = [_flip, _flip, _overwrite, _insert, _delete, _truncate, _duplicate, _splice]
