"""The banks that a clone brings with it, of both families, do what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.bank.validation import validate_bank

SPACE = Path(__file__).resolve().parents[1] / "space"
EXAMPLE = SPACE / "examples" / "unseen_five"


@pytest.mark.parametrize(("name", "megabytes", "method"), [("demo_bank", 23, "ifp"), ("demo_vit_bank", 10, "ahnp")])
def test_a_shipped_bank_is_sound_and_small(name: str, megabytes: int, method: str) -> None:
    bank = Bank.open(SPACE / name)
    assert validate_bank(bank) == []
    assert sum(file.stat().st_size for file in bank.root.rglob("*") if file.is_file()) <= megabytes * 1e6
    assert {entry.method for entry in bank} == {method}
    labels = {label for entry in bank for label in entry.labels}
    assert len(labels) > 60
    assert not labels & {"spider", "sunflower", "table", "train", "wardrobe"}  # the example's stay unseen


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "ratio"), [("mvp", None), ("smsp", 0.8)])
def test_the_vit_bank_adapts_to_classes_that_it_has_never_seen(strategy: str, ratio: float | None) -> None:
    pruner = MetaPruner.from_hub(SPACE / "demo_vit_bank")
    report = pruner.adapt(EXAMPLE, strategy=strategy, ratio=ratio, steps=3).report
    chance = pruner.adapt(EXAMPLE, strategy="random", ratio=ratio, steps=0).report
    assert report.params == chance.params < 0.3 * report.base_params
    assert report.accuracy_at_step[0] >= 0.6
    assert report.accuracy > chance.accuracy
