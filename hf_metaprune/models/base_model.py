"""The base model: the pre-trained network that every mask of a bank refers to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.preprocessing import Preprocessing
from ..errors import FormatError
from ..files.layout import CONFIG, PREPROCESSOR, WEIGHTS
from ..files.names import user_path
from ..files.reading import copy_regular, is_present, sha256_file
from ..files.storage import read_json
from ..masks.mask import Mask
from .architectures.architecture import Architecture
from .architectures.layers import PrunableLayer, layer_sizes
from .architectures.lookup import find_architecture
from .configuration import MetaPrunedConfig
from .modeling import MetaPrunedForImageClassification
from .weights import load_weights

MAX_CLASSES = 100_000
"""Most classes of a base's own classifier; those of ImageNet-21k are 21,841."""


@dataclass
class BaseModel:
    """A pre-trained network, with all that is needed to slice it and to identify it.

    Example:
        Half of the units of each layer, chosen at random, as a model of three classes::

            base = BaseModel.load("resnet50")  # a folder that timm's save_for_hf wrote
            mask = Mask.random(base.sizes, 0.5, seed=0)
            model = base.slice(base.config(mask, ["cat", "dog", "fox"]))

        The whole base as a model, and what identifies the base::

            print(base.whole(["cat", "dog", "fox"]).mask().ratio, base.identity()["sha256"])
    """

    library: str
    """``timm`` or ``transformers``."""
    architecture: str
    """A timm model name, or the name of a transformers class."""
    model_args: dict[str, Any]
    """Arguments with which the library builds the network."""
    sha256: str
    """sha256 of the base's ``model.safetensors``, in hex; it identifies the base."""
    preprocessing: Preprocessing
    """How images are prepared for the network."""
    network: nn.Module = field(repr=False)
    """The network in float32 and eval mode."""
    label_names: tuple[str, ...] = ()
    """The base's own classes in order; empty if its config names none."""
    repo_id: str | None = None
    """Id of the base on the Hub, if it comes from there."""
    revision: str | None = None
    """Commit of that repo."""
    path: Path | None = None
    """Folder from which the base was loaded."""

    @classmethod
    def load(cls, path: str | Path, *, repo_id: str | None = None, revision: str | None = None) -> BaseModel:
        """Load a base from a folder that timm (``save_for_hf``) or transformers (``save_pretrained``) wrote.

        Args:
            path: the folder.
            repo_id: id on the Hub, which sub-networks of this base name in their configs.
            revision: commit of that repo, which they name, too.

        Returns:
            The base, in float32 and eval mode.

        Raises:
            FormatError: a file is missing or damaged, or tensors do not fit the architecture.
            ArchitectureError: the architecture is not supported.
            OptionError: the path is empty, or too long for a path.
        """
        path = user_path(path)
        config = read_json(path / CONFIG)
        library, architecture, model_args = identify(config, path)
        preprocessing = _read_preprocessing(config, path)
        family = find_architecture(library, architecture)
        weights = path / WEIGHTS
        if not is_present(weights) and any(path.glob("*.bin")):
            raise FormatError(
                f"{path} has weights as a pickle, which may run code: save them as {WEIGHTS} (timm's save_for_hf does "
                "with safe_serialization=True)"
            )
        network = _load_network(family, architecture, model_args, load_weights(weights))
        sha, names = sha256_file(weights), _label_names(config, path)
        return cls(library, architecture, model_args, sha, preprocessing, network, names, repo_id, revision, path)

    @cached_property
    def family(self) -> Architecture:
        """Family of the architecture."""
        return find_architecture(self.library, self.architecture)

    @cached_property
    def layers(self) -> list[PrunableLayer]:
        """Prunable layers in forward order, without those of the stem."""
        return self.family.layers(self.network)

    def layers_with(self, stem: bool) -> list[PrunableLayer]:
        """Return the prunable layers in forward order.

        Args:
            stem: whether the layers of the stem are pruned, too; they come first then.

        Raises:
            ArchitectureError: the stem cannot be pruned.
        """
        return self.family.all_layers(self.network, True) if stem else self.layers

    @property
    def sizes(self) -> dict[str, int]:
        """Number of units per layer name."""
        return layer_sizes(self.layers)

    @cached_property
    def state(self) -> dict[str, torch.Tensor]:
        """All tensors of the network by name; they are not copies."""
        return dict(self.network.state_dict())

    def identity(self) -> dict[str, Any]:
        """Return the ``base_model`` block of config files (docs/reference/format.md).

        Returns:
            JSON values by name: the library, the architecture and its arguments, the repo, its commit and the sha256.
        """
        return {
            "library": self.library,
            "architecture": self.architecture,
            "model_args": self.model_args,
            "repo_id": self.repo_id,
            "revision": self.revision,
            "sha256": self.sha256,
        }

    def config(
        self,
        mask: Mask,
        labels: Sequence[str],
        *,
        synsets: Sequence[str | None] | None = None,
        ratio: float | None = None,
        method: str | None = None,
    ) -> MetaPrunedConfig:
        """Return the config of a sub-network of this base.

        Args:
            mask: the units to keep.
            labels: the classes in order.
            synsets: a WordNet synset id or None per class.
            ratio: the share of units removed per layer, if one ratio holds for all layers.
            method: name of the method that chose the units.

        Returns:
            The config, from which `slice` makes the model.
        """
        return MetaPrunedConfig(
            base_model=self.identity(),
            masks=mask.pack(),
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            synsets=list(synsets) if synsets is not None else None,
            ratio=ratio,
            method=method,
            preprocessing=self.preprocessing.to_config(),
        )

    def slice(self, config: MetaPrunedConfig) -> MetaPrunedForImageClassification:
        """Return the sub-network of ``config.masks``, with this base's weights and a new classifier.

        Args:
            config: config of the sub-network (see `config`).

        Returns:
            The model, with copies of the base's tensors in float32.

        Raises:
            FormatError: the masks do not fit this base.
        """
        return MetaPrunedForImageClassification.from_base(self.network, config)

    def whole(self, labels: Sequence[str] = ("any",), stem: bool = False) -> MetaPrunedForImageClassification:
        """Return the whole base as a model with a new classifier.

        Args:
            labels: the classes in order.
            stem: whether the layers of the stem belong to the model's mask, too.

        Returns:
            The model, which keeps every unit, with copies of the base's tensors in float32.
        """
        return self.slice(self.config(Mask.full(layer_sizes(self.layers_with(stem))), labels))

    def copy_files(self, out: Path) -> None:
        """Copy the base's config, weights and image processor into a folder, which is made if it is missing."""
        assert self.path is not None
        out.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, WEIGHTS, PREPROCESSOR):
            if is_present(self.path / name):
                copy_regular(self.path / name, out / name)


def identify(config: Mapping[str, Any], path: Path) -> tuple[str, str, dict[str, Any]]:
    """Return what a ``config.json`` of timm or transformers says about its network.

    Args:
        config: the content of the file.
        path: the folder of the file, for messages.

    Returns:
        ``(library, architecture, model_args)``.

    Raises:
        FormatError: the config names no architecture, or its ``model_args`` are no object.
        ArchitectureError: the architecture is not supported.
    """
    architecture = config.get("architecture")
    if isinstance(architecture, str):
        args = config.get("model_args") or {}
        if not isinstance(args, dict):
            raise FormatError(f"{path / CONFIG}: model_args must be an object")
        # timm writes the number of classes there, too, but the classifier's weights decide it
        return "timm", architecture, {k: v for k, v in args.items() if k != "num_classes"}
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        rules = find_architecture("transformers", names[0]).model_args
        return "transformers", names[0], {k: config[k] for k in rules if k in config}
    raise FormatError(f"{path / CONFIG} says neither 'architecture' (timm) nor 'architectures' (transformers)")


def _label_names(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return the base's own classes, if timm's ``label_names`` or transformers' ``id2label`` lists them."""
    names, by_id = config.get("label_names") or [], config.get("id2label") or {}
    if not isinstance(names, list) or not isinstance(by_id, dict):
        raise FormatError(f"{path / CONFIG}: label_names must be a list, id2label an object")
    return tuple(str(name) for name in names or by_id.values())


def _read_preprocessing(config: Mapping[str, Any], path: Path) -> Preprocessing:
    if isinstance(config.get("pretrained_cfg"), dict):
        return Preprocessing.from_config(config["pretrained_cfg"])
    if not is_present(path / PREPROCESSOR):
        raise FormatError(f"{path} says nothing of image preprocessing: add {PREPROCESSOR} or a pretrained_cfg")
    return Preprocessing.from_processor(path)


def _load_network(
    family: Architecture, architecture: str, args: dict[str, Any], state: dict[str, torch.Tensor]
) -> nn.Module:
    """Load a network with as many classes as its classifier's weights have."""
    state = {name: tensor for name, tensor in state.items() if not name.startswith(family.ignored)}
    empty = family.build_empty(architecture, args, 1)
    head = state.get(f"{family.classifier_name(empty)}.weight")
    if head is None or head.ndim != 2:
        raise FormatError(f"{WEIGHTS} of the base has no classifier {family.classifier_name(empty)}.weight")
    if head.shape[0] > MAX_CLASSES:  # transformers makes a name for each
        raise FormatError(f"{WEIGHTS} of the base has {head.shape[0]:,} classes; at most {MAX_CLASSES:,} are read")
    return family.load(architecture, args, head.shape[0], state).eval()
