"""Copies of networks without data are as deep as those of `copy.deepcopy`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hf_metaprune.models.copying import copy_empty
from tests.models.networks import FEW_BY_DEFAULT, NETWORKS


class Knotted(nn.Module):
    """A network whose parts know each other outside of torch's registries."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.again = self.first
        self.settings = {"widths": [4, 4]}
        self.order = [self.second, self.first]
        self.activation = lambda x: x  # which cannot be pickled


@pytest.mark.parametrize("name", FEW_BY_DEFAULT)
def test_a_copy_has_parts_of_its_own(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name]()
    twin, expected = copy_empty(network), copy.deepcopy(network)
    assert repr(twin) == repr(expected)
    assert [n for n, _ in twin.named_modules()] == [n for n, _ in expected.named_modules()]
    shapes = [{n: (t.shape, t.dtype) for n, t in one.state_dict().items()} for one in (twin, expected)]
    assert shapes[0] == shapes[1]
    assert not {id(m) for m in twin.modules()} & {id(m) for m in network.modules()}
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in network.parameters()}
    for own, one in zip(twin.modules(), network.modules(), strict=True):
        assert own.__dict__.keys() == one.__dict__.keys()
        for key, value in one.__dict__.items():
            if isinstance(value, (dict, list, set)):
                assert own.__dict__[key] is not value, f"{type(one).__name__}.{key}"


def test_what_is_shared_stays_shared_and_nothing_leads_back() -> None:
    with torch.device("meta"):
        network = Knotted()
    twin = copy_empty(network)
    assert twin.again is twin.first
    assert twin.second.weight is twin.first.weight
    assert twin.order == [twin.second, twin.first]
    assert twin.first is not network.first
    twin.settings["widths"].append(5)
    assert network.settings == {"widths": [4, 4]}
