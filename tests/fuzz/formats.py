"""Mutations that know a format: safetensors, Git LFS pointers."""

from __future__ import annotations

import hashlib
import json
from random import Random
from typing import Any

from tests.fuzz.mutators import json_bytes, mutate_bytes, mutate_value, nasty

TYPES = {
    4: "F4",
    6: "F6_E2M3",
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0",
    16: "I16 U16 F16 BF16",
    32: "I32 U32 F32",
    64: "F64 I64 U64 C64",
}
WIDTHS = {name: bits for bits, names in TYPES.items() for name in names.split()}
"""Bits of a number of each of safetensors' types."""
KINDS = ("bytes", "tensor", "tensor", "metadata", "value", "length", "padding", "numbers", "type", "type")
SIZES: list[Any] = [-1, 0, 1, 2**31, 2**32, 2**61, 2**63, 2**64 - 1, 10**25, 1.5, "x", None]


def unpack(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the body of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def pack(header: bytes, body: bytes, size: int | None = None) -> bytes:
    """A safetensors file; `size` is what it says of its header's."""
    return (len(header) if size is None else size).to_bytes(8, "little") + header + body


def mutate_safetensors(rng: Random, content: bytes) -> bytes:
    """A safetensors file with another header, another body, or other bytes."""
    header, body = unpack(content)
    kind = rng.choice(
        ("bytes", "tensor", "tensor", "metadata", "value", "length", "padding", "numbers", "type", "type")
    )
    if kind == "bytes":
        return mutate_bytes(rng, content)
    if kind == "numbers":
        return pack(json.dumps(header).encode(), _other_numbers(rng, body))
    if kind == "type":
        return pack(*_other_type(rng, header, body))
    if kind == "tensor":
        _spoil_tensor(rng, header)
    elif kind == "metadata":
        header["__metadata__"] = rng.choice([mutate_value(rng, header.get("__metadata__") or {}), nasty(rng)])
    elif kind == "value":
        header = mutate_value(rng, header)
    text = json_bytes(rng, header)
    if kind == "length":
        lie = rng.choice((0, 1, len(text) - 1, len(text) + 1, len(text) + 8, 10**8 - 8, 10**8 + 1, 2**63, 2**64 - 1))
        return pack(text, body, lie)
    return pack(text + b" " * (rng.choice((8, 1000, 300_000)) if kind == "padding" else 0), body)


def _spoil_tensor(rng: Random, header: dict[str, Any]) -> None:
    """Lie about one tensor: its place, its shape, its type, its name."""
    names = [name for name in header if name != "__metadata__"]
    name, other = rng.choice(names), rng.choice(names)
    tensor = header[name]
    what = rng.choice(("data_offsets", "shape", "dtype", "name", "gone", "same"))
    if what == "data_offsets":
        start, end = tensor["data_offsets"]
        choices = [[rng.choice(SIZES), end], [start, rng.choice(SIZES)], [end, start], [start], [start - 8, end + 8]]
        tensor[what] = rng.choice([*choices, header[other]["data_offsets"]])
    elif what == "shape":
        shapes = [[rng.choice(SIZES)], [2**32, 2**32], [2**62, 4], [1] * 5000, ["x" * 1000, 10**7], [[0], 10**9]]
        tensor[what] = rng.choice([*shapes, [*tensor["shape"], 1], tensor["shape"][::-1], 7])
    elif what == "dtype":
        tensor[what] = rng.choice([*WIDTHS, "F99", "", None, 5])
    elif what == "name":
        header[rng.choice((f"{name}.more", "", "x" * 100_000, "\ud800", other))] = header.pop(name)
    elif what == "gone":
        del header[name]
    else:
        header[name] = dict(header[other])


def _other_type(rng: Random, header: dict[str, Any], body: bytes) -> tuple[bytes, bytes]:
    """A sound file in which one tensor has another type, or another shape."""
    name = rng.choice([name for name in header if name != "__metadata__"])
    parts, start, new_header = [], 0, dict[str, Any]()
    for key, tensor in sorted(header.items(), key=lambda item: item[1].get("data_offsets", [0])[0]):
        if key == "__metadata__":
            new_header[key] = tensor
            continue
        part, dtype, shape = body[slice(*tensor["data_offsets"])], tensor["dtype"], tensor["shape"]
        if key == name:
            dtype = rng.choice(list(WIDTHS))
            shape = rng.choice([shape, shape, [*shape, 1], [0], []])
            count = 1
            for n in shape:
                count *= n
            part = bytes([rng.randrange(256)]) * (count * WIDTHS[dtype] // 8)
        parts.append(part)
        new_header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + len(part)]}
        start += len(part)
    return json.dumps(new_header).encode(), b"".join(parts)


def _other_numbers(rng: Random, body: bytes) -> bytes:
    """NaN, infinities, huge and tiny values among the numbers."""
    numbers = bytearray(body)
    value = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\x00\x7c\x00\x7c", b"\0" * 4))
    count = rng.choice((1, 1, 8, len(body) // 4))
    start = 4 * rng.randrange(max(1, len(body) // 4 - count + 1))
    numbers[start : start + 4 * count] = value * count
    return bytes(numbers)


def lfs_pointer(rng: Random, content: bytes) -> bytes:
    """The text that Git has in the place of a large file, true or not."""
    digest, size = hashlib.sha256(content).hexdigest(), len(content)
    text = "version https://git-lfs.github.com/spec/v1\n"
    text += f"oid sha256:{rng.choice((digest, '0' * 64, '../../outside', ''))}\n"
    text += f"size {rng.choice((size, 0, -1, 10**18, 'x'))}\n"
    if rng.random() < 0.3:
        return mutate_bytes(rng, text.encode())
    return text.encode()
