"""`MetaPrunedConfig`: what a sliced model's ``config.json`` holds. Light: importing it imports no network."""

# No `from __future__ import annotations` here: the strict config checks its fields by their real types.
from typing import TYPE_CHECKING, Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from ..data.task import MAX_LABELS
from ..errors import FormatError
from ..files.layout import FORMAT_VERSION
from ..masks.mask import Mask
from ..version import __version__

if TYPE_CHECKING:
    from .architectures.architecture import Architecture


@strict
class MetaPrunedConfig(PreTrainedConfig):
    """Everything needed to build a sliced model: the base's architecture, the masks, the labels (format version 1).

    Fields beyond transformers' own:
        base_model: ``library``, ``architecture``, ``model_args``, ``repo_id``, ``revision``, ``sha256`` of the base.
        masks: packed masks, see `Mask.pack`.
        ratio: pruning ratio; method: how the sub-network was made; synsets: WordNet ids by label, or null.
        preprocessing: of images, in the field names of timm's ``pretrained_cfg`` (a field of that very name would make
            transformers take the folder for a timm model).
        dataset, metrics, seed: the data set's name, what was measured on it, and the seed of the run, if known.
    """

    model_type = "metaprune"

    format_version: int = FORMAT_VERSION
    hf_metaprune_version: str = __version__
    base_model: dict | None = None
    masks: dict | None = None
    ratio: float | None = None
    method: str | None = None
    synsets: list | None = None
    preprocessing: dict | None = None
    dataset: str | None = None
    metrics: dict | None = None
    seed: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.format_version > FORMAT_VERSION:
            raise FormatError(
                f"this model has format version {self.format_version}; this hf_metaprune reads up to {FORMAT_VERSION}: "
                "upgrade with `pip install -U hf-metaprune`"
            )
        if kwargs.get("num_labels", 0) > MAX_LABELS:  # transformers would make a name for each
            raise FormatError(f"a model of {kwargs['num_labels']} labels; at most {MAX_LABELS} are read")
        super().__post_init__(**kwargs)

    def mask(self) -> Mask:
        """The masks, unpacked.

        Raises:
            FormatError: they are missing or malformed.
        """
        return Mask.unpack(self.masks if self.masks is not None else {"": {}})

    def architecture(self) -> "Architecture":
        """The family of the base model.

        Raises:
            FormatError: the config has no usable ``base_model``.
            ArchitectureError: it is not supported.
        """
        base = self.base_model or {}
        if not isinstance(base.get("library"), str) or not isinstance(base.get("architecture"), str):
            raise FormatError("config.json has no base_model with library and architecture")
        from .architectures.lookup import find_architecture

        return find_architecture(base["library"], base["architecture"])
