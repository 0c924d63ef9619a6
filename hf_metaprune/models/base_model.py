"""The base model: the pre-trained network that every mask of a bank refers to."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.preprocessing import Preprocessing
from ..errors import FormatError
from ..files.layout import CONFIG, PREPROCESSOR, WEIGHTS
from ..files.storage import read_json
from ..masks.mask import Mask
from .architectures.architecture import Architecture, PrunableLayer, layer_sizes
from .architectures.lookup import find_architecture
from .configuration import MetaPrunedConfig
from .modeling import MetaPrunedForImageClassification
from .weights import load_weights


def sha256_file(path: Path) -> str:
    """sha256 of a file, in hex: what the Hub shows of a large file, too."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: Any) -> str:  # Python 3.10
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@dataclass
class BaseModel:
    """A full network with what is needed to slice it, and to know it again.

    `sha256` is that of its ``model.safetensors``. `network` is in float32 and eval mode.
    """

    library: str
    architecture: str
    model_args: dict[str, Any]
    sha256: str
    preprocessing: Preprocessing
    network: nn.Module
    label_names: tuple[str, ...] = ()
    repo_id: str | None = None
    revision: str | None = None
    path: Path | None = None

    @classmethod
    def load(cls, path: str | Path, *, repo_id: str | None = None, revision: str | None = None) -> BaseModel:
        """From a folder that timm (``save_for_hf``) or transformers (``save_pretrained``) wrote.

        Raises:
            FormatError: a file is missing or damaged, or tensors do not fit the architecture.
            ArchitectureError: the architecture is not supported.
        """
        path = Path(path)
        config = read_json(path / CONFIG)
        library, architecture, model_args = identify(config, path)
        preprocessing = _read_preprocessing(config, path)
        family = find_architecture(library, architecture)
        weights = path / WEIGHTS
        if not weights.exists() and any(path.glob("*.bin")):
            raise FormatError(
                f"{path} has weights as a pickle, which may run code: save them as {WEIGHTS} (timm's save_for_hf does "
                "with safe_serialization=True)"
            )
        network = _build(family, architecture, model_args, load_weights(weights))
        sha, names = sha256_file(weights), _label_names(config, path)
        return cls(library, architecture, model_args, sha, preprocessing, network, names, repo_id, revision, path)

    @cached_property
    def family(self) -> Architecture:
        """The architecture family."""
        return find_architecture(self.library, self.architecture)

    @cached_property
    def layers(self) -> list[PrunableLayer]:
        """The prunable layers."""
        return self.family.layers(self.network)

    def layers_with(self, stem: bool) -> list[PrunableLayer]:
        """The prunable layers, those of the stem first if it is to be pruned, too.

        Raises:
            ArchitectureError: the stem cannot be pruned.
        """
        return self.family.all_layers(self.network, True) if stem else self.layers

    @property
    def sizes(self) -> dict[str, int]:
        """Unit counts by layer."""
        return layer_sizes(self.layers)

    @cached_property
    def state(self) -> dict[str, torch.Tensor]:
        """All tensors of the network by name (not copies)."""
        return dict(self.network.state_dict())

    def identity(self) -> dict[str, Any]:
        """The ``base_model`` block of config files."""
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
        """The config of a sub-network of this base."""
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
        """The sub-network of ``config.masks`` with this base's weights and a new classifier."""
        return MetaPrunedForImageClassification.from_base(self.network, config)

    def whole(self, labels: Sequence[str] = ("any",), stem: bool = False) -> MetaPrunedForImageClassification:
        """All of the base with a new classifier; `stem`: its layers are those of the stem, too."""
        return self.slice(self.config(Mask.full(layer_sizes(self.layers_with(stem))), labels))

    def copy_files(self, out: Path) -> None:
        """Copy the base's own files into a bank's folder."""
        assert self.path is not None
        out.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, WEIGHTS, PREPROCESSOR):
            if (self.path / name).exists():
                shutil.copyfile(self.path / name, out / name)


def identify(config: Mapping[str, Any], path: Path) -> tuple[str, str, dict[str, Any]]:
    """(library, architecture, model_args) of a config.json that timm or transformers wrote."""
    architecture = config.get("architecture")
    if isinstance(architecture, str):
        args = config.get("model_args") or {}
        if not isinstance(args, dict):
            raise FormatError(f"{path / CONFIG}: model_args must be an object")
        # timm writes the number of classes there, too; the classifier in the weights says it.
        return "timm", architecture, {k: v for k, v in args.items() if k != "num_classes"}
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        known = find_architecture("transformers", names[0]).model_args
        return "transformers", names[0], {k: config[k] for k in known if k in config}
    raise FormatError(f"{path / CONFIG} says neither 'architecture' (timm) nor 'architectures' (transformers)")


def _label_names(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The base's own classes: timm's ``label_names``, or transformers' ``id2label``; none if it names none."""
    names, by_id = config.get("label_names") or [], config.get("id2label") or {}
    if not isinstance(names, list) or not isinstance(by_id, dict):
        raise FormatError(f"{path / CONFIG}: label_names must be a list, id2label an object")
    return tuple(str(name) for name in names or by_id.values())


def _read_preprocessing(config: Mapping[str, Any], path: Path) -> Preprocessing:
    if isinstance(config.get("pretrained_cfg"), dict):
        return Preprocessing.from_config(config["pretrained_cfg"])
    if not (path / PREPROCESSOR).exists():
        raise FormatError(f"{path} says nothing of image preprocessing: add {PREPROCESSOR} or a pretrained_cfg")
    return Preprocessing.from_processor(path)


def _build(family: Architecture, architecture: str, args: dict[str, Any], state: dict[str, torch.Tensor]) -> nn.Module:
    state = {name: tensor for name, tensor in state.items() if not name.startswith(family.ignored)}
    with torch.device("meta"):
        empty = family.build(architecture, args, 1)
    head = state.get(f"{family.classifier_name(empty)}.weight")
    if head is None or head.ndim != 2:
        raise FormatError(f"{WEIGHTS} of the base has no classifier {family.classifier_name(empty)}.weight")
    if head.shape[0] > 1_000_000:
        raise FormatError(f"{WEIGHTS} of the base has {head.shape[0]} classes")
    return family.load(architecture, args, head.shape[0], state).eval()
