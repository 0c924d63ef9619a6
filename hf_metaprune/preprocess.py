"""Image preprocessing: one description (timm's field names), one transformers image processor, used everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from .errors import FormatError

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BaseImageProcessor

RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
MAX_SIDE = 4096  # pixels; guards memory against a config that asks for more


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to ``size / crop_pct``, crop the centre, scale to [0, 1], normalise."""

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 0.875

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """From a ``pretrained_cfg`` of timm, ignoring fields that do not concern images.

        Raises:
            FormatError: a field is missing or out of range.
        """
        try:
            size = tuple(int(n) for n in config["input_size"])
            mean, std = (tuple(float(v) for v in config[name]) for name in ("mean", "std"))
            interpolation, crop_pct = str(config.get("interpolation", "bicubic")), float(config.get("crop_pct", 0.875))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"image preprocessing: field {error} is missing or has the wrong type") from error
        numbers = [*mean, *std, crop_pct]
        if len(size) != 3 or size[0] != 3 or not all(8 <= n <= MAX_SIDE for n in size[1:]):
            raise FormatError(
                f"image preprocessing: input_size {size} must be (3, height, width), sides 8 to {MAX_SIDE}"
            )
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or not all(map(math.isfinite, numbers)):
            raise FormatError("image preprocessing: mean and std must be three finite numbers each, std above zero")
        if interpolation not in RESAMPLE or not 0.1 <= crop_pct <= 1.0:
            raise FormatError(f"image preprocessing: interpolation {interpolation!r} or crop_pct {crop_pct} is unknown")
        return cls(size, mean, std, interpolation, crop_pct)

    @classmethod
    def from_processor(cls, config: Mapping[str, Any]) -> Preprocessing:
        """From a ``preprocessor_config.json`` of transformers (resize the shorter side, maybe crop, normalise).

        Raises:
            FormatError: it does something else.
        """
        size, crop = config.get("size") or {}, config.get("crop_size") or {}
        side = size.get("shortest_edge")
        height, width = (crop.get(k) or size.get(k) or side for k in ("height", "width"))
        if not height or not width:
            raise FormatError(f"preprocessor_config.json: size {size} and crop_size {crop} are not understood")
        crop_pct = config.get("crop_pct") or (min(height, width) / side if side else 1.0)
        names = {number: name for name, number in RESAMPLE.items()}
        fields = {"mean": config.get("image_mean"), "std": config.get("image_std"), "crop_pct": min(1.0, crop_pct)}
        fields |= {"input_size": (3, height, width), "interpolation": names.get(config.get("resample", 2))}
        return cls.from_config(fields)

    def to_config(self) -> dict[str, Any]:
        """As JSON-ready fields of a timm ``pretrained_cfg``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def processor(self) -> BaseImageProcessor:
        """The transformers image processor that does this; saved as ``preprocessor_config.json``."""
        from transformers import BitImageProcessor

        _, height, width = self.input_size
        return BitImageProcessor(
            size={"shortest_edge": math.floor(min(height, width) / self.crop_pct)},
            crop_size={"height": height, "width": width},
            resample=RESAMPLE[self.interpolation],
            image_mean=list(self.mean),
            image_std=list(self.std),
            do_convert_rgb=True,
        )

    def to_uint8(self, images: Sequence[Image]) -> torch.Tensor:
        """Resized and cropped RGB images: uint8 (n, 3, height, width)."""
        out = self.processor()(list(images), do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
        return out.round().clamp(0, 255).to(torch.uint8)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (n, 3, h, w) -> float32 of the same shape, as the network wants it."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images.to(torch.float32) / 255.0 - mean) / std
