"""Checks of an entry's weights against the base's."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from hf_metaprune.bank.entry_checks import check_magnitudes
from hf_metaprune.errors import FormatError
from hf_metaprune.masks.mask import Mask
from hf_metaprune.models.base_model import BaseModel


def test_means_of_a_base_that_was_never_trained_may_move(base: BaseModel) -> None:
    """Its running means are 0 and its variances 1, as a new network's; training moves both at once."""
    network = copy.deepcopy(base.network)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    new = replace(base, network=network)
    model = new.slice(new.config(Mask.random(new.sizes, 0.5, seed=0), ["cat", "dog"]))
    norm = model.network.layer1[0].bn1
    norm.running_mean.fill_(30)
    check_magnitudes(model.network.state_dict(), new)
    norm.running_mean.fill_(300)
    with pytest.raises(FormatError, match=r"layer1\.0\.bn1\.running_mean is far out"):
        check_magnitudes(model.network.state_dict(), new)
