"""Small, task-specific image models by meta-vote pruning from banks of pruned models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._auto import register_when_imported
from .version import __version__

if TYPE_CHECKING:
    from .bank.bank import Bank
    from .data.task import Task
    from .errors import MetaPruneError
    from .masks.mask import Mask
    from .models.base_model import BaseModel
    from .models.configuration import MetaPrunedConfig
    from .models.modeling import MetaPrunedForImageClassification
    from .pruner import MetaPruner
    from .reporting.report import AdaptReport
    from .result import AdaptResult

_HOMES = {
    "AdaptReport": "reporting.report",
    "AdaptResult": "result",
    "Bank": "bank.bank",
    "BaseModel": "models.base_model",
    "Mask": "masks.mask",
    "MetaPruneError": "errors",
    "MetaPrunedConfig": "models.configuration",
    "MetaPrunedForImageClassification": "models.modeling",
    "MetaPruner": "pruner",
    "Task": "data.task",
}

__all__ = [
    "AdaptReport",
    "AdaptResult",
    "Bank",
    "BaseModel",
    "Mask",
    "MetaPruneError",
    "MetaPrunedConfig",
    "MetaPrunedForImageClassification",
    "MetaPruner",
    "Task",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__


register_when_imported()
