"""`MetaPrunedForImageClassification`: a sliced network as an ordinary transformers model."""

from __future__ import annotations

import copy
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from ..errors import FormatError
from ..masks.mask import Mask
from ..masks.scores import ScoreMask
from .architectures.architecture import Architecture, PrunableLayer, layer_sizes
from .configuration import MetaPrunedConfig
from .slicing import ScatterBatchNorm2d, shrink, slice_state
from .weight_file import add_header


class MetaPrunedForImageClassification(PreTrainedModel):
    """An image classifier that is a slice of a base model; loads and saves like any transformers model.

    Input ``pixel_values`` float (batch, 3, height, width); output ``logits`` float (batch, labels), and ``loss``
    if integer ``labels`` (batch,) are given. Build one from a config (untrained), with `from_base` (sliced out of
    a base network), or with ``from_pretrained``.
    """

    config_class = MetaPrunedConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    score_mask: ScoreMask | None = None
    """How much each unit of the base matters to the model's task, if that was learnt or voted (SMSP)."""

    def __init__(self, config: MetaPrunedConfig) -> None:
        super().__init__(config)
        self.architecture = config.architecture()
        outer = torch.empty(0).device
        self.network, self.layers = build_sliced(self.architecture, config)
        if outer.type != "meta":
            self.network.to_empty(device=outer)
        self.num_labels = config.num_labels
        self.post_init()
        self.place_outputs()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As transformers', which fills with nothing the buffers that are not stored."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).place_outputs()
        return loaded

    def place_outputs(self) -> None:
        """Set again where branches write into the stream, after all buffers were emptied."""
        for module in self.modules():
            if isinstance(module, ScatterBatchNorm2d):
                module.set_kept(module.kept)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """As transformers', plus the header metadata of format version 1, and the score mask if there is one."""
        super().save_pretrained(save_directory, **kwargs)
        if not kwargs.get("is_main_process", True):
            return
        add_header(Path(save_directory), self.config, self.score_mask)

    @classmethod
    def from_base(cls, network: nn.Module, config: MetaPrunedConfig) -> MetaPrunedForImageClassification:
        """Slice the units of ``config.masks`` out of a base network; the classifier is new unless its shape fits.

        Raises:
            OptionError: the mask does not fit the network.
        """
        model = cls(config)
        head = model.architecture.classifier_name(network)
        state = slice_state(network.state_dict(), model.layers, config.mask())
        own = model.network.state_dict()
        fitting = {n: t for n, t in state.items() if not n.startswith(f"{head}.") or own[n].shape == t.shape}
        model.network.load_state_dict(fitting, strict=False)
        return model

    def mask(self) -> Mask:
        """The units of the base this model holds."""
        return self.config.mask()

    def freeze_stem(self) -> None:
        """No gradients and no new batch norm statistics before the first prunable layer."""
        for name in self.architecture.stem_names(self.network):
            self.network.get_submodule(name).requires_grad_(False).eval()

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the classifier sees: float (batch, features)."""
        return self.architecture.features(self.network, pixel_values)

    @property
    def classifier(self) -> nn.Linear:
        """The final linear layer."""
        return self.architecture.classifier(self.network)

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutputWithNoAttention | tuple:
        logits = self.classifier(self.features(pixel_values))
        loss = self.loss_function(labels, logits, self.config, **kwargs) if labels is not None else None
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


@lru_cache(maxsize=8)  # a bank's entries are slices of one network, and to build it costs more than to slice it
def _whole_network(
    architecture: Architecture, name: str, model_args: str, num_labels: int, dtype: torch.dtype
) -> tuple[nn.Module, tuple[PrunableLayer, ...], tuple[PrunableLayer, ...]]:
    """The unsliced network on the meta device, in torch's default dtype, its layers, and those of its stem.

    Not to be changed.
    """
    assert dtype == torch.get_default_dtype()  # transformers changes it while it loads a model
    with torch.device("meta"):
        network = architecture.build(name, json.loads(model_args), num_labels)
        return network, tuple(architecture.layers(network)), tuple(architecture.stem_layers(network))


def build_sliced(architecture: Architecture, config: MetaPrunedConfig) -> tuple[nn.Module, list[PrunableLayer]]:
    """An empty sliced network on the meta device, and the layers of its base.

    Raises:
        FormatError: the masks do not fit the architecture.
    """
    base: dict[str, Any] = config.base_model or {}
    arguments = json.dumps(base.get("model_args") or {}, sort_keys=True)
    whole, prunable, stem = _whole_network(
        architecture, base["architecture"], arguments, config.num_labels, torch.get_default_dtype()
    )
    with torch.device("meta"):
        network, mask = copy.deepcopy(whole), config.mask()
        layers = [*(stem if len(mask) > len(prunable) else ()), *prunable]
        sizes = layer_sizes(layers)
        if mask.sizes != sizes:
            wrong = sorted(set(mask.sizes.items()) ^ set(sizes.items()))[:3]
            raise FormatError(f"the masks do not fit {base['architecture']}: they differ at {wrong}")
        shrink(network, layers, Mask.full(sizes), mask)
    return network, layers
