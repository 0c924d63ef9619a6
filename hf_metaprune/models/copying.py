"""Copies of networks on the meta device, several times as fast as `copy.deepcopy`."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

_REGISTRIES = ("_modules", "_parameters", "_buffers")
_ATOMS = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.Size)


def copy_empty(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose tensors are on the meta device.

    The copy has modules and parameters of its own, so that it can be sliced. It shares buffers with the original,
    because slicing replaces buffers and a tensor on the meta device has no data.

    Args:
        network: the network; it is not changed.
    """
    copies: dict[int, Any] = {}
    root = _copy_registered(network, copies)
    for module in network.modules():
        own = copies[id(module)].__dict__
        for name, value in module.__dict__.items():
            if name not in _REGISTRIES:
                own[name] = _copy_attribute(value, copies)
    return root


def _copy_registered(module: nn.Module, copies: dict[int, Any]) -> Any:
    """Return a copy with the registered modules, parameters and buffers only; what is shared stays shared."""
    if id(module) in copies:
        return copies[id(module)]
    twin = copies[id(module)] = module.__class__.__new__(module.__class__)
    parameters = {name: _copy_parameter(parameter, copies) for name, parameter in module._parameters.items()}
    children = {n: None if child is None else _copy_registered(child, copies) for n, child in module._modules.items()}
    twin.__dict__.update(_parameters=parameters, _buffers=dict(module._buffers), _modules=children)
    return twin


def _copy_parameter(parameter: nn.Parameter | None, copies: dict[int, Any]) -> nn.Parameter | None:
    if parameter is None:
        return None
    return copies.setdefault(id(parameter), nn.Parameter(parameter.data, parameter.requires_grad))


def _copy_attribute(value: Any, copies: dict[int, Any]) -> Any:
    if isinstance(value, _ATOMS):
        return value
    if isinstance(value, (dict, list, set)) and not value:  # most of a module's attributes
        return value.copy()
    return copy.deepcopy(value, copies)  # which finds the copies of modules that it refers to
