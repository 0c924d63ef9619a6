"""Shared by the families of transformers: how a network is recognized, built, loaded and described."""

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
    """Silence transformers' progress bar and its report on tensors that do not fit, which we raise ourselves."""
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
    """Name of the network's class."""
    config_name: ClassVar[str]
    """Name of the class of its config."""

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
        """Build a network with the tensors of `state`; transformers translates the names of older checkpoints."""
        empty = self.build_empty(architecture, model_args, num_classes)
        n_expected, n_stored = (sum(t.numel() for t in tensors.values()) for tensors in (empty.state_dict(), state))
        if n_expected > n_stored:  # before memory is taken for what the config asks
            raise FormatError(
                f"{WEIGHTS} of the base does not fit {architecture}: it holds {n_stored:,} numbers, and {CONFIG} "
                f"describes a network of {n_expected:,}, so some tensor has another shape or is missing"
            )
        with _silent():
            network, loading_info = cast("Any", type(empty)).from_pretrained(
                None,
                config=empty.config,
                state_dict=dict(state),
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        check_fit(
            architecture,
            reshaped=[name for name, *_ in loading_info["mismatched_keys"]],
            missing=loading_info["missing_keys"],
            unexpected=loading_info["unexpected_keys"],
        )
        return network

    def describe(self, network: nn.Module) -> tuple[str, dict[str, Any]]:
        config = cast("Any", network).config.to_dict()
        return self.class_name, {name: config[name] for name in self.model_args if name in config}
