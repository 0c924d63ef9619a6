"""Mutations of cards: values of their YAML, YAML that attacks its reader, and the text below."""

from __future__ import annotations

from random import Random
from typing import Any

import yaml  # type: ignore[import-untyped]

from hf_metaprune.reporting.card import split_card
from tests.fuzz.mutators import RAW, mutate_bytes, mutate_value, nasty

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
LINES = [
    LAUGHS,
    "loop: &loop [*loop]\n",
    "x: !!python/object/apply:os.system ['touch outside']\n",
    "x: !!python/name:os.system\n",
    "%TAG ! tag:yaml.org,2002:python/\n---\n",
    "%YAML 9.9\n---\n",
    "<<: {tags: [a]}\n",
    "<<: 5\n",
    "? [a, b]\n: c\n",
    "? {a: b}\n: c\n",
    "? 2001-01-01\n: c\n",
    "1: a\n",
    "null: a\n",
    *(f"x: !!{kind} {value}\n" for kind in ("int", "float", "bool", "timestamp", "binary") for value in ("''", "zz")),
    *("x: !!set {a, b}\n", "x: !!omap [a: 1]\n", "x: !!pairs [a: 1]\n", "x: !!set 5\n", "x: !!omap 5\n", "x: !!str\n"),
    *("x: 2001-01-01\n", "x: 2001-99-99\n", "x: 2001-12-14t21:59:43.10+99:99\n", "x: 0001-01-01T00:00:00+23:59\n"),
    *("x: .inf\n", "x: .nan\n", "x: 0b" + "1" * 9 + "\n", "x: " + "1:" * 400 + "1\n", "x: 0o7\n", "x: 1e999\n"),
    *("x: " + "1:" * 200_000 + "1\n", "x: -1:" + "59:" * 100_000 + "1.5\n", "!!float " + "1:" * 200_000 + "1: x\n"),
    *("x: 0x" + "f" * 5000 + "\n", "x: " + "9" * 5000 + "\n", "0x" + "f" * 5000 + ": x\n"),
    *("x: " + "[" * 400 + "\n", "x: " + "[" * 180 + "]" * 180 + "\n", "x: " + "{a: " * 400 + "\n"),
    *('x: "\\ud800"\n', '"\\ud800": x\n', 'x: "\\uZZZZ"\n', "x: \0\n", "x: \x07\n", "x: \ufffe\n", "\tx: y\n"),
    *("tags: text\n", "tags: 5\n", "tags: {a: b}\n", "tags: [[a], {b: c}, 5, null]\n", "tags: true\n", "tags: [\n"),
    *("metaprune: 5\n", "metaprune: []\n", "model-index: 5\n", "model-index: [5]\n", "ignore_metadata_errors: true\n"),
    *("self: x\n", "base_model: [[]]\n", "x: |\n  " + "y" * 100_000 + "\n", "license: {a: b}\n", "x: &\n", "x: *y\n"),
]
TEXTS = [
    *("", "\n" * 60_000, "x\n" * 20_000, "---\n" * 20_000, "<!-- hf-metaprune card " * 5000, "\r\n" * 20_000),
    *("<!-- hf-metaprune card 0123456789abcdef -->\n" * 2000, " \n" * 30_000, "\u2028" * 20_000, "```\n", "\0"),
]


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def mutate_card(rng: Random, content: bytes) -> bytes:
    """A card with other YAML, another text, or other bytes."""
    kind = rng.choice(("bytes", "values", "values", "facts", "lines", "lines", "text"))
    if kind == "bytes":
        return mutate_bytes(rng, content)
    data, text = split_card(content.decode())
    front = yaml.dump(data, sort_keys=False)
    if kind == "values":
        front = _dumped(mutate_value(rng, data))
    elif kind == "facts":
        facts = data["metaprune"] | {rng.choice([*data["metaprune"]]): nasty(rng)}
        front = _dumped(data | {"metaprune": facts})
    elif kind == "lines":
        for _ in range(rng.choice((1, 1, 2))):
            front = rng.choice([front + (line := rng.choice(LINES)), line + front, front + f"y: 1\n{line}"])
    else:
        place = rng.randrange(len(text))
        text = rng.choice([text[:place], text[place:], text[:place] + rng.choice(TEXTS) + text[place:]])
    return f"---\n{front}---\n{text}".encode("utf-8", "surrogatepass")


def mutate_facts(rng: Random, data: dict[str, Any]) -> Any:
    """What the Hub makes of a card's YAML, with other values; most often those of the ``metaprune`` block."""
    if rng.random() < 0.3:
        return mutate_value(rng, data)
    return data | {"metaprune": mutate_value(rng, data["metaprune"])}


def _dumped(data: Any) -> str:
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    for mark, raw in RAW.items():
        if mark in text:
            text = text.replace(f"'{mark}'", raw[:400])
    return text
