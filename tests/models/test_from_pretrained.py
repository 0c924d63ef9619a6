"""What transformers' `from_pretrained` says of a damaged model, where it loads with our classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageClassification

from hf_metaprune import MetaPrunedForImageClassification
from hf_metaprune.errors import FormatError
from hf_metaprune.files.layout import CONFIG, WEIGHTS
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.architectures.layers import layer_sizes
from hf_metaprune.models.architectures.lookup import find_architecture
from hf_metaprune.models.saving import save_model
from tests.conftest import first_by_default
from tests.fuzz.watch import little_memory

Damage = Callable[[Path], None]


@pytest.fixture
def folder(model: MetaPrunedForImageClassification, tmp_path: Path) -> Iterator[Path]:
    save_model(model, tmp_path)
    yield tmp_path


def cut_short(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-100])


def write_noise(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"\xff" * 200)


def change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return damage


def change_config(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        values = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(values | changes))

    return damage


WEIGHT = "network.layer1.0.conv1.weight"
DAMAGES: dict[str, tuple[Damage, str]] = {
    "cut short": (cut_short, "cannot be read: .*; it may be cut short, fetch it again"),
    "noise": (write_noise, "model.safetensors cannot be read"),
    "a tensor is missing": (
        change_tensors(lambda tensors: tensors.pop(WEIGHT)),
        f"tensors .'{WEIGHT}'. are missing or unexpected",
    ),
    "a tensor of another shape": (
        change_tensors(lambda tensors: tensors.update({WEIGHT: torch.zeros(3, 3)})),
        f"tensor {WEIGHT} has shape .3, 3., not",
    ),
    "not finite": (change_tensors(lambda tensors: tensors[WEIGHT].fill_(torch.nan)), f"are not finite: {WEIGHT}$"),
    "a variance that is not finite": (
        change_tensors(lambda tensors: tensors["network.bn1.running_var"].fill_(torch.nan)),
        "are not finite: network.bn1.running_var$",
    ),
    "fewer labels": (
        change_config(id2label={"0": "a"}),
        "tensor network.fc.weight has shape|tensor network.fc.bias has shape",
    ),
    "a text as metrics": (change_config(metrics="good"), "metrics"),
    "a text as version": (change_config(format_version="1"), "format_version"),
    "an unknown dtype": (change_config(dtype="float7"), "dtype .float7. must be one of"),
    "a number as dtype": (change_config(dtype=5), "dtype .5. must be one of"),
    "many labels": (change_config(id2label={str(i): "x" for i in range(20_000)}), "its id2label has 20000 items"),
    "masks of another kind": (change_config(masks={"a": 1}), "masks: layer 'a'"),
}


@pytest.mark.parametrize("damage", first_by_default(*DAMAGES))
def test_a_damaged_model_is_refused_with_the_reason(folder: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    change(folder)
    with pytest.raises(FormatError, match=message) as refusal:
        AutoModelForImageClassification.from_pretrained(folder)
    assert str(folder) in str(refusal.value)


@pytest.mark.parametrize("values", [{"preprocessing": 3}, {"id2label": "x"}, {"ratio": "x"}, {"ratio": 7.0}])
def test_a_damaged_config_is_refused_with_the_reason(folder: Path, values: dict[str, object]) -> None:
    change_config(**values)(folder)
    for load in (AutoConfig, AutoModelForImageClassification, MetaPrunedForImageClassification):
        with pytest.raises(FormatError) as refusal:
            load.from_pretrained(folder)
        assert str(folder) in str(refusal.value)
    with pytest.raises(FormatError, match="'|ratio|preprocessing"):
        AutoConfig.from_pretrained(folder)


@pytest.mark.parametrize("values", [{"base_model": {}}, {"masks": None}])
def test_a_config_of_no_network_is_refused_with_the_reason(folder: Path, values: dict[str, object]) -> None:
    change_config(**values)(folder)
    with pytest.raises(FormatError, match=f"{folder}: .*(base_model|masks)"):
        AutoModelForImageClassification.from_pretrained(folder)


def test_the_options_of_transformers_hold(folder: Path) -> None:
    """Which allow a new classifier, and give an account of the loading."""
    change_config(id2label={"0": "a", "1": "b"})(folder)
    model, account = AutoModelForImageClassification.from_pretrained(
        folder, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert model.classifier.weight.shape[0] == 2
    assert len(account["mismatched_keys"]) == 2
    config = AutoConfig.from_pretrained(folder)
    assert not isinstance(
        MetaPrunedForImageClassification.from_pretrained(folder, config=config, ignore_mismatched_sizes=True), tuple
    )
    assert AutoConfig.from_pretrained(folder, return_unused_kwargs=True, unknown=1)[1] == {"unknown": 1}


@pytest.mark.parametrize("index", [{}, {"metadata": {}, "weight_map": {WEIGHT: "../elsewhere.safetensors"}}, []])
def test_weights_in_several_files_are_refused(folder: Path, index: object) -> None:
    """Whose index names files, which may lie elsewhere."""
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match="has its weights in several files"):
        AutoModelForImageClassification.from_pretrained(folder)


def test_no_pickle_is_opened(folder: Path, model: MetaPrunedForImageClassification) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(FormatError, match=r"has no model\.safetensors"):
        AutoModelForImageClassification.from_pretrained(folder)


def test_a_config_of_a_huge_network_costs_nothing(folder: Path) -> None:
    """It is compared with the header of the weights before transformers takes memory for it."""
    config = json.loads((folder / CONFIG).read_text())
    base = config["base_model"]
    base["model_args"] |= {"channels": [1 << 16] * 4}
    layers = find_architecture("timm", base["architecture"]).build_empty(base["architecture"], base["model_args"], 2)
    sizes = layer_sizes(find_architecture("timm", base["architecture"]).layers(layers))
    change_config(base_model=base, masks=Mask.full(sizes).pack())(folder)
    with little_memory(), pytest.raises(FormatError, match="has shape"):
        AutoModelForImageClassification.from_pretrained(folder)


def test_nothing_in_a_config_chooses_code(folder: Path) -> None:
    hostile = {"_attn_implementation": "eve/kernel", "quantization_config": {"quant_method": "bitsandbytes"}}
    change_config(**hostile, auto_map={"AutoConfig": "eve/x--code.Config"}, transformers_weights="x.bin")(folder)
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert not hostile.keys() & model.config.to_dict().keys()
    assert not hasattr(model.config, "quantization_config")
