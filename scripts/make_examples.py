#!/usr/bin/env python
"""Write the demo's example task: 20 training and 100 test images of each of five classes that no entry has.

uv run scripts/make_examples.py --data ../shared/data/cifar100
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from build_demo_bank import held_out_classes
from datasets import Dataset, concatenate_datasets, load_dataset

PER_CLASS = {"train": 20, "test": 100}


def pick(split: Dataset, classes: list[int], per_class: int) -> Dataset:
    """The first images of each class, with the image and label columns named and typed for everyone."""
    labels = split["label"]
    rows = [[i for i, label in enumerate(labels) if label == c][:per_class] for c in classes]
    return concatenate_datasets([split.select(r) for r in rows])


def main(
    data: Annotated[str | None, typer.Option(help="Folder of CIFAR-100 parquet; the Hub's copy if left out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("space/examples/unseen_five"),
    seed: Annotated[int, typer.Option(help="Seed that the demo bank was built with.")] = 0,
) -> None:
    """Write train.parquet and test.parquet."""
    source = load_dataset("parquet", data_dir=data) if data else load_dataset("uoft-cs/cifar100")
    if "label" not in source["train"].features:
        source = source.rename_columns({"img": "image", "fine_label": "label"})
    names = source["train"].features["label"].names
    classes = held_out_classes(seed)[-5:]
    out.mkdir(parents=True, exist_ok=True)
    for name, per_class in PER_CLASS.items():
        pick(source[name].select_columns(["image", "label"]), classes, per_class).to_parquet(out / f"{name}.parquet")
    print(f"{out}: {', '.join(names[c] for c in classes)}")


if __name__ == "__main__":
    typer.run(main)
