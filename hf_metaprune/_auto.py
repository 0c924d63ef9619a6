"""Make transformers' Auto classes know our model as soon as they exist, without importing transformers for it.

``import hf_metaprune`` stays light; the price is a hook on the import of two modules of transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

AUTO_CONFIG = "transformers.models.auto.configuration_auto"
AUTO_MODEL = "transformers.models.auto.modeling_auto"


def register_config() -> None:
    """Make `AutoConfig` know `MetaPrunedConfig`."""
    from transformers.models.auto.configuration_auto import AutoConfig

    from .models.configuration import MetaPrunedConfig

    AutoConfig.register(MetaPrunedConfig.model_type, MetaPrunedConfig, exist_ok=True)


def register_model() -> None:
    """Make `AutoModelForImageClassification` know `MetaPrunedForImageClassification`."""
    from transformers.models.auto.modeling_auto import AutoModelForImageClassification

    from .models.configuration import MetaPrunedConfig
    from .models.modeling import MetaPrunedForImageClassification

    AutoModelForImageClassification.register(MetaPrunedConfig, MetaPrunedForImageClassification, exist_ok=True)


REGISTRATIONS: dict[str, Callable[[], None]] = {AUTO_CONFIG: register_config, AUTO_MODEL: register_model}
"""What to do once a module of transformers has been imported."""


class _AfterImport(MetaPathFinder):
    def __init__(self, waiting: dict[str, Callable[[], None]]) -> None:
        self.waiting = waiting

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        register = self.waiting.pop(name, None)
        if register is None:
            return None
        if not self.waiting:
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register_when_imported() -> None:
    """Register now what transformers has imported already, and the rest as soon as it is imported."""
    waiting = {name: register for name, register in REGISTRATIONS.items() if name not in sys.modules}
    for name, register in REGISTRATIONS.items():
        if name not in waiting:
            register()
    if waiting and not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(waiting))
