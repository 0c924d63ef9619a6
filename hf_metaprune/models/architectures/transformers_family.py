"""Shared by the families of transformers: a config and a class of the same name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import torch
from torch import nn

from ...errors import ArchitectureError, FormatError
from ...files.layout import CONFIG, WEIGHTS
from ..weights import check_fit
from .architecture import Architecture
from .model_args import check_model_args


@contextmanager
def _silent() -> Iterator[None]:
    """transformers without its bar of loaded tensors, and without a report on those that do not fit: we raise."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    level, bar, hub_bars = logging.get_verbosity(), logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()  # and the Hub's, which may have been off
            if not hub_bars:
                disable_progress_bars()


class TransformersFamily(Architecture):
    """A family whose networks are one class of transformers, ``<Name>ForImageClassification``."""

    library = "transformers"
    class_name: ClassVar[str]
    config_name: ClassVar[str]

    @property
    def covers(self) -> str:
        return self.class_name

    def matches(self, architecture: str) -> bool:
        return architecture == self.class_name

    def recognizes(self, network: nn.Module) -> bool:
        return type(network).__name__ == self.class_name and type(network).__module__.startswith("transformers.")

    def build(self, architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
        import transformers

        check_model_args(model_args, self.model_args, architecture)
        try:
            config = getattr(transformers, self.config_name)(**model_args, num_labels=num_classes)
            return getattr(transformers, self.class_name)(config)
        except Exception as error:  # whatever transformers makes of arguments that do not go together
            raise ArchitectureError(f"transformers cannot build {architecture}: {error}") from error

    def load(
        self, architecture: str, model_args: Mapping[str, Any], num_classes: int, state: Mapping[str, torch.Tensor]
    ) -> nn.Module:
        """As of every family; names may be those of checkpoints, which transformers changes into its networks' own."""
        with torch.device("meta"):
            empty = self.build(architecture, model_args, num_classes)
        asked, held = (sum(t.numel() for t in tensors.values()) for tensors in (empty.state_dict(), state))
        if asked > held:  # before memory is taken for what the config asks
            raise FormatError(
                f"{WEIGHTS} of the base does not fit {architecture}: it holds {held:,} numbers, and {CONFIG} describes "
                f"a network of {asked:,}, so some tensor has another shape or is missing"
            )
        with _silent():
            network, found = cast("Any", type(empty)).from_pretrained(
                None,
                config=empty.config,
                state_dict=dict(state),
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        check_fit(
            architecture,
            reshaped=[name for name, *_ in found["mismatched_keys"]],
            missing=found["missing_keys"],
            unexpected=found["unexpected_keys"],
        )
        return network

    def describe(self, network: nn.Module) -> tuple[str, dict[str, Any]]:
        config = cast("Any", network).config.to_dict()
        return self.class_name, {name: config[name] for name in self.model_args if name in config}
