"""`MetaPrunedForImageClassification`: a sliced network as an ordinary transformers model."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention
from transformers.utils import cached_file

from ..errors import FormatError, named_errors, printable, reason
from ..files.layout import WEIGHTS
from ..masks.mask import Mask
from ..masks.scores import ScoreMask
from .architectures.architecture import Architecture
from .architectures.layers import PrunableLayer, layer_sizes
from .configuration import MetaPrunedConfig
from .slicing import ScatterBatchNorm2d, shrink, slice_state
from .weight_file import add_header, check_tensors

_PLACE_ARGUMENTS = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")
"""Arguments of ``from_pretrained`` that say where the files are."""


class MetaPrunedForImageClassification(PreTrainedModel):
    """An image classifier that is a slice of a base model; it loads and saves like any transformers model.

    There are three ways to make one: from a config (untrained), with `from_base` (sliced out of a base network), and
    with ``from_pretrained``.

    Args:
        config: the base's architecture, the masks and the labels.

    Example:
        A saved model, with transformers' own classes::

            from transformers import AutoImageProcessor, AutoModelForImageClassification

            import hf_metaprune  # registers the model type

            model = AutoModelForImageClassification.from_pretrained("model")
            processor = AutoImageProcessor.from_pretrained("model")
            logits = model(**processor(image, return_tensors="pt")).logits

        A model sliced out of a base network, its loss, and the input of its classifier::

            config = base.config(Mask.random(base.sizes, 0.5), ["cat", "dog"])
            sliced = MetaPrunedForImageClassification.from_base(base.network, config)
            print(sliced.mask().ratio, sliced.features(pixels).shape)
            print(sliced.forward(pixels, labels=torch.tensor([0, 1])).loss)
            sliced.save_pretrained("untrained")
    """

    config_class = MetaPrunedConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    score_mask: ScoreMask | None = None
    """Score per unit of the base for the model's task, if a method learned it or neighbors voted on it (SMSP)."""

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
        """Load a model as transformers does, check that its weights are whole, and refill what is not stored.

        Args:
            args: positional arguments of transformers' ``from_pretrained``.
            kwargs: its keyword arguments.

        Returns:
            The model; with transformers' account of the loading if ``output_loading_info`` is set.

        Raises:
            FormatError: the weights are damaged, or do not fit the config; tensors of other shapes are allowed if
                ``ignore_mismatched_sizes`` is set.
        """
        wants_info, may_differ = kwargs.pop("output_loading_info", False), kwargs.pop("ignore_mismatched_sizes", False)
        kwargs.setdefault("use_safetensors", True)  # or transformers would read a pickle
        name = printable(str(args[0] if args else kwargs.get("pretrained_model_name_or_path")))
        try:
            with named_errors(name):
                if args and not may_differ:
                    cls._check_weights(args[0], kwargs)
                model, info = super().from_pretrained(
                    *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
                )
        except SafetensorError as error:
            raise FormatError(f"the weights of {name} cannot be read: {reason(error)}; fetch them again") from error
        if info["missing_keys"]:
            raise FormatError(f"the weights of {name} lack {_few(info['missing_keys'])}")
        if info["mismatched_keys"] and not may_differ:
            raise FormatError(f"tensors of {name} do not fit its config: {_few(info['mismatched_keys'])}")
        tensors = itertools.chain(model.named_parameters(), model.named_buffers())
        if unsound_names := [n for n, t in tensors if not (t.is_meta or t.isfinite().all())]:
            raise FormatError(f"tensors of {name} have values that are not finite: {_few(unsound_names)}")
        model.place_outputs()
        return (model, info) if wants_info else model

    @classmethod
    def _check_weights(cls, name: str | os.PathLike, kwargs: dict[str, Any]) -> None:
        """Check the tensors of a model against its config before transformers takes memory for them.

        Raises:
            FormatError: there are no weights, or they do not fit the config.
        """
        if kwargs.keys() & {"state_dict", "variant", "gguf_file"}:
            return
        places = {key: kwargs[key] for key in _PLACE_ARGUMENTS if key in kwargs}
        file, shards = (
            cached_file(name, f"{WEIGHTS}{suffix}", _raise_exceptions_for_missing_entries=False, **places)
            for suffix in ("", ".index.json")
        )
        if file is None:
            problem = f"no {WEIGHTS}, or it is no regular file" if shards is None else "its weights in several files"
            raise FormatError(f"{printable(str(name))} has {problem}")
        config = kwargs.get("config")
        if not isinstance(config, MetaPrunedConfig):
            config = MetaPrunedConfig.from_pretrained(name, **places)
        with torch.device("meta"):
            expected = cls(config).state_dict()
        check_tensors(Path(file), expected)

    def place_outputs(self) -> None:
        """Set again the channels at which branches write into the stream, after buffers were emptied."""
        for module in self.modules():
            if isinstance(module, ScatterBatchNorm2d):
                module.set_kept(module.kept)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model as transformers does, with the header metadata of format version 1.

        The score mask, if there is one, is saved beside the weights.

        Args:
            save_directory: folder to write to.
            kwargs: those of transformers' ``save_pretrained``.
        """
        super().save_pretrained(save_directory, **kwargs)
        if not kwargs.get("is_main_process", True):
            return
        add_header(Path(save_directory), self.config, self.score_mask)

    @classmethod
    def from_base(cls, network: nn.Module, config: MetaPrunedConfig) -> MetaPrunedForImageClassification:
        """Slice the units of ``config.masks`` out of a base network.

        The classifier is new, unless the base's has as many classes.

        Args:
            network: the base network; it is not changed.
            config: the config of the sub-network.

        Returns:
            The sub-network, with copies of the base's tensors.

        Raises:
            FormatError: the masks do not fit the architecture.
            OptionError: the masks empty a layer that must keep a unit.
        """
        model = cls(config)
        head = model.architecture.classifier_name(network)
        state = slice_state(network.state_dict(), model.layers, config.mask())
        own = model.network.state_dict()
        fitting = {n: t for n, t in state.items() if not n.startswith(f"{head}.") or own[n].shape == t.shape}
        model.network.load_state_dict(fitting, strict=False)
        return model

    def mask(self) -> Mask:
        """Return the units of the base that this model keeps.

        Returns:
            The mask over the layers of the base.
        """
        return self.config.mask()

    def freeze_stem(self) -> None:
        """Switch off gradients and new batch norm statistics before the first prunable layer."""
        for name in self.architecture.stem_names(self.network):
            self.network.get_submodule(name).requires_grad_(False).eval()

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the input of the classifier.

        Args:
            pixel_values: normalized images, float (batch, 3, height, width).

        Returns:
            float (batch, features).
        """
        return self.architecture.features(self.network, pixel_values)

    @property
    def classifier(self) -> nn.Linear:
        """Final linear layer."""
        return self.architecture.classifier(self.network)

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutputWithNoAttention | tuple:
        """Compute logits, and the loss if labels are given.

        Args:
            pixel_values: normalized images, float (batch, 3, height, width).
            labels: class indices, int64 (batch,).
            return_dict: False for a plain tuple: ``(logits,)`` or ``(loss, logits)``.
            kwargs: arguments of transformers' loss function.

        Returns:
            ``logits``, float (batch, labels), and ``loss``, the mean cross-entropy, a scalar or None.
        """
        logits = self.classifier(self.features(pixel_values))
        loss = self.loss_function(labels, logits, self.config, **kwargs) if labels is not None else None
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


def _few(keys: Iterable[Any]) -> str:
    """Return the first names of tensors, of which transformers gives some with their shapes."""
    names = sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@lru_cache(maxsize=8)  # a bank's entries are slices of one network
def _described_layers(
    architecture: Architecture, name: str, model_args: str, num_labels: int
) -> tuple[tuple[PrunableLayer, ...], tuple[PrunableLayer, ...]]:
    """Return the prunable layers of an unsliced network, and those of its stem."""
    network = architecture.build_empty(name, json.loads(model_args), num_labels)
    return tuple(architecture.layers(network)), tuple(architecture.stem_layers(network))


def build_sliced(architecture: Architecture, config: MetaPrunedConfig) -> tuple[nn.Module, list[PrunableLayer]]:
    """Build an empty sliced network on the meta device.

    Returns:
        The network, and the prunable layers of its base.

    Raises:
        FormatError: the masks do not fit the architecture.
    """
    base: dict[str, Any] = config.base_model or {}
    name, arguments, num_labels = base["architecture"], base.get("model_args") or {}, config.num_labels
    prunable, stem = _described_layers(architecture, name, json.dumps(arguments, sort_keys=True), num_labels)
    with torch.device("meta"):
        network, mask = architecture.build_empty(name, arguments, num_labels), config.mask()
        layers = [*(stem if len(mask) > len(prunable) else ()), *prunable]
        sizes = layer_sizes(layers)
        if mask.sizes != sizes:
            differing = sorted(set(mask.sizes.items()) ^ set(sizes.items()))[:3]
            raise FormatError(f"the masks do not fit {base['architecture']}: they differ at {differing}")
        shrink(network, layers, Mask.full(sizes), mask)
    return network, layers
