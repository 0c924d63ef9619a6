"""Small, task-specific image models by meta-vote pruning from banks of pruned models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._auto import register_when_imported
from .version import __version__

if TYPE_CHECKING:
    from .adapt.plan import Plan
    from .bank.bank import Bank, open_bank
    from .config import AdaptOptions, MethodOptions, SearchOptions, TrainingOptions, TrunkOptions
    from .data.task import Task, TaskData
    from .errors import MetaPruneError
    from .masks.mask import Mask
    from .models.base_model import BaseModel
    from .models.configuration import MetaPrunedConfig
    from .models.modeling import MetaPrunedForImageClassification
    from .pruner import MetaPruner
    from .reporting.report import AdaptReport
    from .result import AdaptResult, load_result

_MODULES = {
    "AdaptOptions": "config",
    "AdaptReport": "reporting.report",
    "AdaptResult": "result",
    "Bank": "bank.bank",
    "BaseModel": "models.base_model",
    "Mask": "masks.mask",
    "MetaPruneError": "errors",
    "MetaPrunedConfig": "models.configuration",
    "MetaPrunedForImageClassification": "models.modeling",
    "MetaPruner": "pruner",
    "MethodOptions": "config",
    "Plan": "adapt.plan",
    "SearchOptions": "config",
    "Task": "data.task",
    "TaskData": "data.task",
    "TrainingOptions": "config",
    "TrunkOptions": "config",
    "load_result": "result",
    "open_bank": "bank.bank",
}
"""Where each public name lies; a module is imported when one of its names is first asked for."""

__all__ = [
    "AdaptOptions",
    "AdaptReport",
    "AdaptResult",
    "Bank",
    "BaseModel",
    "Mask",
    "MetaPruneError",
    "MetaPrunedConfig",
    "MetaPrunedForImageClassification",
    "MetaPruner",
    "MethodOptions",
    "Plan",
    "SearchOptions",
    "Task",
    "TaskData",
    "TrainingOptions",
    "TrunkOptions",
    "__version__",
    "load_result",
    "open_bank",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__


register_when_imported()
