#!/usr/bin/env python
"""Write `hf_metaprune/overrides.py`: the options as typed keyword arguments, so that editors complete them.

uv run scripts/make_overrides.py
"""

from __future__ import annotations

import json
from dataclasses import Field
from pathlib import Path

from hf_metaprune.config import SIZE_OPTIONS, AdaptOptions, TrainingOptions
from hf_metaprune.options import option_fields

OUT = Path(__file__).resolve().parents[1] / "hf_metaprune" / "overrides.py"
HEAD = '''"""The options as typed keyword arguments. Made from `config.py` by scripts/make_overrides.py: do not edit."""

from __future__ import annotations

from typing import Literal, TypedDict
'''


def typed_dict(name: str, summary: str, types: dict[str, str], bases: str = "TypedDict") -> str:
    """The source of one class."""
    lines = [f"    {field}: {kind}" for field, kind in types.items()]
    return "\n".join([f"class {name}({bases}, total=False):", f'    """{summary}"""', "", *lines])


def kind(f: Field) -> str:
    """The type of a field; where only some values can be, these."""
    choices = f.metadata.get("choices")
    if choices:
        return f"Literal[{', '.join(json.dumps(choice) for choice in choices)}]"
    return str(f.type).removesuffix(" | None")


def source() -> str:
    """The whole module."""
    adapt, training = (
        {name: f"{kind(f)} | None" for name, f in option_fields(cls).items()} for cls in (AdaptOptions, TrainingOptions)
    )
    parts = [
        HEAD,
        typed_dict("SizeOverrides", "How large a model is.", {n: t for n, t in adapt.items() if n in SIZE_OPTIONS}),
        typed_dict(
            "AdaptOverrides",
            "Fields of `AdaptOptions`.",
            {n: t for n, t in adapt.items() if n not in SIZE_OPTIONS},
            "SizeOverrides",
        ),
        typed_dict("TrainingOverrides", "Fields of `TrainingOptions`.", training),
        'class Overrides(AdaptOverrides, TrainingOverrides, total=False):\n    """Fields of both."""',
    ]
    return "\n\n".join(f"{part.rstrip()}\n" for part in parts)


if __name__ == "__main__":
    OUT.write_text(source())
