"""Make transformers' Auto classes know our config as soon as they exist, without importing transformers for it.

``import hf_metaprune`` stays light; the price is a hook on the import of one module of transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

AUTO_MODULE = "transformers.models.auto.configuration_auto"


def register_config() -> None:
    """Register `MetaPrunedConfig`; the config in turn registers the model when the first one is made."""
    from transformers.models.auto.configuration_auto import AutoConfig

    from .models.configuration import MetaPrunedConfig

    AutoConfig.register(MetaPrunedConfig.model_type, MetaPrunedConfig, exist_ok=True)


class _AfterImport(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != AUTO_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            register_config()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register_when_imported() -> None:
    """Register now if transformers' Auto classes are there already, else as soon as they are imported."""
    if AUTO_MODULE in sys.modules:
        register_config()
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
