"""What families say of their networks: where units are seen, and what the stem is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.architectures.layers import layer_sizes
from hf_metaprune.models.architectures.lookup import identify_architecture
from hf_metaprune.models.slicing import slice_network
from tests.models.networks import FEW_BY_DEFAULT, NETWORKS, logits, network


@pytest.mark.parametrize("name", NETWORKS)
def test_probes_see_each_unit_once_as_the_next_layer_reads_it(name: str) -> None:
    net = network(name)
    layers = identify_architecture(net).layers(net)
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            inputs[path], outputs[path] = (None if not args else args[0]), output

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in net.named_modules()]
    with torch.no_grad():
        logits(net, torch.randn(2, 3, 32, 32))
    for handle in handles:
        handle.remove()
    n_read = 0
    for layer in layers:
        probe = layer.probe
        activations = (inputs if probe.at_input else outputs)[probe.module]
        assert activations.shape[probe.dim] == probe.inner * layer.size
        owners = [axis.tensor.rpartition(".") for axis in layer.axes if axis.dim == 1]
        readers = [path for path, _, tensor in owners if tensor == "weight" and inputs.get(path) is not None]
        for reader in [reader for reader in readers if ".se." not in reader]:
            n_read += 1
            if len(readers) > 1:  # squeeze and excitation reads, too, and gives each channel a factor
                read, seen = (tensor.abs().sum((2, 3), True) for tensor in (inputs[reader], activations))
                activations = activations * read / (seen + 1e-9)
            if inputs[reader].ndim == 2 and activations.ndim == 4:  # the classifier reads what was pooled
                pooled = [activations.mean((2, 3)), activations.amax((2, 3))]
                activations = torch.cat(pooled[: inputs[reader].shape[1] // layer.size], 1)
            assert torch.allclose(inputs[reader], activations, atol=1e-4 if len(readers) > 1 else 0), layer.name
    assert n_read >= len(layers) // 3, "few layers have a reader of their own: the others write into the stream"


@pytest.mark.parametrize("name", FEW_BY_DEFAULT)
def test_a_sliced_network_has_the_same_stream_after_each_stage(name: str) -> None:
    net = network(name)
    family = identify_architecture(net)
    stages = family.stages(net)
    assert len(stages) > 1
    small = slice_network(net, Mask.random(layer_sizes(family.layers(net)), 0.5, seed=0))
    assert family.stages(small) == stages
    shapes: list[torch.Size] = []
    for each in (net, small):
        for path in stages:
            each.get_submodule(path).register_forward_hook(lambda _m, _a, output: shapes.append(output.shape))
        with torch.no_grad():
            logits(each, torch.randn(2, 3, 32, 32))
        for path in stages:
            each.get_submodule(path)._forward_hooks.clear()
    assert len(shapes) == 2 * len(stages)
    assert shapes[: len(stages)] == shapes[len(stages) :]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_stem_has_parameters_that_can_be_frozen(name: str) -> None:
    net = network(name)
    names = identify_architecture(net).stem_names(net)
    assert any(parameter.startswith(names) for parameter, _ in net.named_parameters())
    assert not any(layer.name.startswith(names) for layer in identify_architecture(net).layers(net))
