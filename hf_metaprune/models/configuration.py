"""`MetaPrunedConfig`: the content of a sliced model's ``config.json``. Importing this module imports no network."""

# No `from __future__ import annotations` here: the strict config checks its fields by their real types.
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig

from ..data.task import MAX_LABELS
from ..errors import FormatError, named_errors, reason
from ..files.counts import Counts
from ..files.layout import FORMAT_VERSION
from ..masks.mask import MAX_LAYERS, MAX_UNITS, Mask
from ..version import __version__

if TYPE_CHECKING:
    from .architectures.architecture import Architecture

_LABEL_COUNTS = dict.fromkeys(("id2label", "label2id", "synsets"), MAX_LABELS)
COUNTS = Counts(
    items_by_key={"masks": MAX_LAYERS, **_LABEL_COUNTS},
    values=5000,
    values_by_key={"masks": 5 * MAX_LAYERS, **_LABEL_COUNTS},
    text=MAX_UNITS,
    characters_by_key={"masks": 2_000_000},
)
"""The most that a config may hold; transformers needs a second for it."""
DTYPE_NAMES = ("float16", "bfloat16", "float32", "float64")
"""Types of weights that a config may name, with or without ``torch.`` before them."""


@strict
class MetaPrunedConfig(PreTrainedConfig):
    """The config of a sliced model: its base's architecture, its masks and its labels (format version 1).

    Only the fields beyond transformers' own are documented here.

    Example:
        >>> from hf_metaprune import Mask
        >>> mask = Mask({"conv1": [0, 3]}, {"conv1": 4})
        >>> config = MetaPrunedConfig(masks=mask.pack(), id2label={0: "cat", 1: "dog"})
        >>> config.mask() == mask, config.num_labels
        (True, 2)
        >>> config.validate()  # an exact mask and sound labels raise no error
        >>> MetaPrunedConfig.from_dict(config.to_dict()).mask() == mask
        True
        >>> config.base_model = {"library": "timm", "architecture": "resnet50", "model_args": {}}
        >>> config.architecture().name
        'timm-resnet'
    """

    model_type = "metaprune"

    format_version: int = FORMAT_VERSION
    """Version of the format on disk (docs/reference/format.md)."""
    hf_metaprune_version: str = __version__
    """Version of the library that wrote the model."""
    base_model: dict | None = None
    """``library``, ``architecture``, ``model_args``, ``repo_id``, ``revision`` and ``sha256`` of the base."""
    masks: dict | None = None
    """Kept units per layer, packed by `Mask.pack`."""
    ratio: float | None = None
    """The share of units removed per layer, in [0, 1), if one ratio holds for all layers."""
    method: str | None = None
    """Name of the method that chose the units."""
    synsets: list | None = None
    """A WordNet synset id or null per label."""
    preprocessing: dict | None = None
    """Image preprocessing in the field names of timm's ``pretrained_cfg``; transformers would take a folder with a
    field of that very name for a timm model."""
    dataset: str | None = None
    """Name of the data set that the model was fine-tuned on, if known."""
    metrics: dict | None = None
    """What was measured on that data set, by name."""
    seed: int | None = None
    """Seed of the run."""
    class_means: str | None = None
    """The mean features of the base for each class of the training images, packed by `ClassMeans.pack`, in base64."""

    def __post_init__(self, **kwargs: Any) -> None:
        if self.format_version > FORMAT_VERSION:
            raise FormatError(
                f"this model has format version {self.format_version}; this hf_metaprune reads up to {FORMAT_VERSION}: "
                "upgrade with `pip install -U hf-metaprune`"
            )
        if kwargs.get("num_labels", 0) > MAX_LABELS:  # transformers would make a name for each
            raise FormatError(f"a model of {kwargs['num_labels']} labels; at most {MAX_LABELS} are read")
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a config of the content of a ``config.json``.

        Args:
            config_dict: the content.
            kwargs: those of transformers' ``from_dict``.

        Returns:
            The config; with the arguments that it did not use if ``return_unused_kwargs`` is set.

        Raises:
            FormatError: a value has a wrong type or is too large, or the format version is newer.
        """
        with named_errors(kwargs.get("name_or_path")):  # transformers' Auto classes tell it
            return cls._from_values(config_dict, **kwargs)

    @classmethod
    def _from_values(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        dtype = config_dict.get("dtype")
        if dtype is not None and str(dtype).removeprefix("torch.") not in DTYPE_NAMES:
            raise FormatError(f"dtype {str(dtype)[:40]!r} must be one of: {', '.join(DTYPE_NAMES)}")
        try:
            values = {key: value for key, value in config_dict.items() if key in CONFIG_KEYS or key == "_commit_hash"}
            COUNTS.check(values)
            ratio = values.get("ratio")
            if isinstance(ratio, (int, float)) and not 0 <= ratio <= 1:  # as comparisons with NaN are false
                raise FormatError(f"ratio {str(ratio)[:40]} must lie between 0 and 1")
            return super().from_dict(values, **kwargs)
        except StrictDataclassError as error:
            raise FormatError(" ".join(str(error).split())) from error
        except (TypeError, ValueError, AttributeError, LookupError, RecursionError) as error:
            raise FormatError(reason(error)) from error

    def mask(self) -> Mask:
        """Return the unpacked masks.

        Returns:
            The mask over the layers that the model prunes.

        Raises:
            FormatError: the masks are missing or malformed.
        """
        return Mask.unpack(self.masks if self.masks is not None else {"": {}})

    def architecture(self) -> "Architecture":
        """Return the family of the base model.

        Returns:
            The registered family.

        Raises:
            FormatError: the config has no usable ``base_model``.
            ArchitectureError: the architecture is not supported.
        """
        base = self.base_model or {}
        if not isinstance(base.get("library"), str) or not isinstance(base.get("architecture"), str):
            raise FormatError("config.json has no base_model with library and architecture")
        from .architectures.lookup import find_architecture

        return find_architecture(base["library"], base["architecture"])


CONFIG_KEYS = frozenset(field.name for field in fields(MetaPrunedConfig)) | {"model_type"}
"""Keys that are read of a stranger's config; transformers has more keys, which choose kernels, quantizers and code."""
