"""Saved models: what is altered, too new, or of another base is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hf_metaprune.errors import BaseMismatchError, FormatError, OptionError
from hf_metaprune.masks.scores import ScoreMask
from hf_metaprune.models.configuration import MetaPrunedConfig
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.models.saving import load_model, save_model
from tests.models.conftest import copies, edit_config


def test_a_config_of_a_newer_format_is_refused(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    edit_config(tmp_path, format_version=2)
    with pytest.raises(FormatError, match="format version 2.*upgrade"):
        load_model(tmp_path)


def test_a_loaded_model_does_not_change_with_its_file(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    """safetensors' tensors lie in the file (findings/safetensors_views.sh)."""
    folder, model = tmp_path / "model", copy.deepcopy(model)
    model.score_mask = ScoreMask.from_mask(model.mask())
    save_model(model, folder)
    loaded = load_model(folder)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    assert loaded.score_mask is not None
    scores = {name: loaded.score_mask[name].copy() for name in loaded.score_mask}
    for file in folder.glob("*.safetensors"):
        size = file.stat().st_size
        with file.open("r+b") as handle:
            start = 8 + int.from_bytes(handle.read(8), "little")
            handle.seek(start)
            handle.write(b"\x40" * (size - start))
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for name, values in scores.items():
        assert np.array_equal(loaded.score_mask[name], values), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": None}, "mask"),
        ({"masks": {}}, "do not fit"),
        ({"base_model": None}, "base_model"),
        ({"base_model": {"library": "timm", "architecture": "vgg11"}}, "supported"),
        (
            {"base_model": {"library": "timm", "architecture": "resnet18", "model_args": {"checkpoint_path": "x"}}},
            "checkpoint_path",
        ),
        ({"model_type": "vit"}, "model_type"),
        ({"id2label": {"0": "a", "1": "b"}}, "shape|labels"),
        ({"ratio": "high"}, "ratio"),
        ({"base_model": {"library": "timm", "architecture": "resnet18", "model_args": [1]}}, "must be an object"),
        ({"base_model": {"library": "timm", "architecture": "resnet18", "model_args": {"act_layer": "x"}}}, "timm"),
        ({"num_labels": 10**9, "id2label": None}, "3 synsets for 2 labels"),
        ({"id2label": ["a", "b"]}, "config.json"),
    ],
)
def test_altered_configs_are_refused(
    model: MetaPrunedForImageClassification, tmp_path: Path, changes: dict, message: str
) -> None:
    from hf_metaprune.errors import MetaPruneError

    save_model(model, tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(MetaPruneError, match=message):
        load_model(tmp_path)


def test_a_name_for_each_of_a_billion_labels_is_not_made() -> None:
    with pytest.raises(FormatError, match="1000000000 labels"):
        MetaPrunedConfig(num_labels=10**9)


def test_what_chooses_code_and_kernels_is_not_read(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    edit_config(tmp_path, attn_implementation="flash_attention_2", quantization_config={"quant_method": "bitsandbytes"})
    assert load_model(tmp_path).mask() == model.mask()


def test_other_bases_are_refused(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    with pytest.raises(BaseMismatchError, match="belongs to base"):
        load_model(tmp_path, expected="0" * 64)


def test_altered_weights_are_refused(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    state = copies(path)
    name = "network.layer1.0.conv1.weight"

    path.write_bytes(whole[:-100])
    with pytest.raises(FormatError, match="cannot be read.*cut short"):
        load_model(tmp_path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(FormatError, match="cannot be read"):
        load_model(tmp_path)
    path.unlink()
    with pytest.raises(FormatError, match="model.safetensors is missing"):
        load_model(tmp_path)
    save_file({n: t for n, t in state.items() if n != name}, path)
    with pytest.raises(FormatError, match="missing or unexpected"):
        load_model(tmp_path)
    save_file(state | {name: state[name][:, :1].contiguous()}, path)
    with pytest.raises(FormatError, match="shape"):
        load_model(tmp_path)
    save_file(state | {name: state[name].int()}, path)
    with pytest.raises(FormatError, match="dtype"):
        load_model(tmp_path)
    save_file(state | {name: torch.full_like(state[name], float("nan"))}, path)
    with pytest.raises(FormatError, match="not finite"):
        load_model(tmp_path)
    save_file(state, path, metadata={"masks_digest": "0"})
    with pytest.raises(FormatError, match="masks_digest"):
        load_model(tmp_path)
    save_file(state, path, metadata={"format_version": "7"})
    with pytest.raises(FormatError, match="newer format"):
        load_model(tmp_path)


def test_the_same_model_has_the_same_bytes(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    digests = set()
    for n in range(6):  # safetensors shuffles its metadata
        (tmp_path / str(n)).mkdir()
        save_model(model, tmp_path / str(n))
        digests.add((tmp_path / str(n) / "model.safetensors").read_bytes())
    assert len(digests) == 1


def test_values_that_do_not_fit_a_dtype_are_refused(model: MetaPrunedForImageClassification, tmp_path: Path) -> None:
    with torch.no_grad():
        model.classifier.bias[0] = 1e6
    with pytest.raises(FormatError, match="not finite in float16"):
        save_model(model, tmp_path, "float16")
    with pytest.raises(OptionError, match="float8"):
        save_model(model, tmp_path, "float8")
