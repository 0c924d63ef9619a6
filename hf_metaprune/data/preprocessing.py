"""Image preprocessing: one description (timm's field names), one transformers image processor, used everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import FormatError
from ..files.counts import Counts
from ..files.layout import PREPROCESSOR
from ..files.storage import read_json

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BaseImageProcessor

RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
CROP_MODES = ("center", "squash")
PROCESSORS = ("BitImageProcessor", "CLIPImageProcessor", "ConvNextImageProcessor", "ViTImageProcessor")
CONVNEXT_SQUASHES = 384  # pixels; from there on transformers' ConvNext processor does not crop
MAX_SIDE = 1024  # pixels; guards memory against a config that asks for more
MAX_RESIZED_PIXELS = 12_000_000
"""Most pixels of a resized image before its center is cropped; of longer images only the middle is resized."""

SMALLEST_STD, LARGEST_NUMBER = 1e-6, 1e6
"""Bounds of means and standard deviations: beyond them pixels are not finite in float32."""


@dataclass(frozen=True)
class Preprocessing:
    """A description of image preprocessing: resize, crop the center, scale to [0, 1], normalize.

    Example:
        >>> from PIL import Image
        >>> pixels = Preprocessing(input_size=(3, 64, 64)).to_uint8([Image.new("RGB", (640, 480))])
        >>> pixels.shape, pixels.dtype
        (torch.Size([1, 3, 64, 64]), torch.uint8)
        >>> Preprocessing().normalize(pixels).dtype
        torch.float32
        >>> Preprocessing().processor().crop_size["height"]
        224
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    """Channels, height and width of the network's input, in pixels."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Mean per channel of images in [0, 1], which is subtracted."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Standard deviation per channel, by which images are then divided."""
    interpolation: str = "bicubic"
    """How images are resized: a name of `RESAMPLE`."""
    crop_pct: float = 0.875
    """Share of the resized shorter side that the crop keeps, in [0.1, 1]."""
    crop_mode: str = "center"
    """``center`` resizes the shorter side to ``size / crop_pct`` and crops; ``squash`` resizes both sides to the input
    size, whatever the image's shape."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Read a ``pretrained_cfg`` of timm; fields that do not concern images are ignored.

        Raises:
            FormatError: a field is missing or out of range.
        """
        try:
            size = tuple(int(n) for n in config["input_size"])
            mean, std = (tuple(float(v) for v in config[name]) for name in ("mean", "std"))
            interpolation, crop_pct = str(config.get("interpolation", "bicubic")), float(config.get("crop_pct", 0.875))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"image preprocessing: a field is missing or has the wrong type: {error}") from error
        crop_mode = config.get("crop_mode") or "center"
        is_usable = len(mean) == len(std) == 3 and min(std) >= SMALLEST_STD and all(map(_is_moderate, (*mean, *std)))
        if len(size) != 3 or size[0] != 3 or not all(8 <= n <= MAX_SIDE for n in size[1:]):
            raise FormatError(
                f"image preprocessing: input_size {size} must be (3, height, width), sides 8 to {MAX_SIDE}"
            )
        if not is_usable:
            raise FormatError(
                f"image preprocessing: mean and std must be three numbers each, of at most {LARGEST_NUMBER:g}, and "
                f"std at least {SMALLEST_STD:g}"
            )
        if interpolation not in RESAMPLE or not 0.1 <= crop_pct <= 1.0 or min(size[1:]) / crop_pct > 2 * MAX_SIDE:
            raise FormatError(
                f"image preprocessing: interpolation {interpolation!r} or crop_pct {crop_pct} is not supported"
            )
        if crop_mode not in CROP_MODES or (crop_mode == "squash" and crop_pct != 1.0):
            raise FormatError(f"image preprocessing: crop_mode {crop_mode!r} with crop_pct {crop_pct} is not supported")
        if crop_mode == "center" and size[1] != size[2]:
            raise FormatError(f"image preprocessing: input_size {size} is not square, as crop_mode 'center' needs")
        return cls(size, mean, std, interpolation, crop_pct, crop_mode)

    @classmethod
    def from_processor(cls, folder: Path) -> Preprocessing:
        """Read the ``preprocessor_config.json`` that transformers wrote into a folder.

        Raises:
            FormatError: the file cannot be read, or describes something else than resizing, cropping the center, and
                normalizing.
        """
        import transformers

        path = folder / PREPROCESSOR
        values = read_json(path)  # transformers' own loader would open whatever else is in the folder
        try:
            Counts().check(values)
            name = _processor_name(values)
            processor = getattr(transformers, name).from_dict(values)
            return cls.from_config(_translate_processor(processor.to_dict() | {"image_processor_type": name}))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
        except Exception as error:  # whatever transformers makes of a malformed file
            raise FormatError(f"{path} is not understood: {error}") from error

    def to_config(self) -> dict[str, Any]:
        """Return the fields of a timm ``pretrained_cfg``, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def processor(self) -> BaseImageProcessor:
        """Return the transformers image processor that does the same; it is saved as ``preprocessor_config.json``.

        Returns:
            A processor that resizes, crops and normalizes.
        """
        from transformers import BitImageProcessor

        _, height, width = self.input_size
        sides, edge = {"height": height, "width": width}, math.floor(min(height, width) / self.crop_pct + 1e-6)
        return BitImageProcessor(
            size=sides if self.crop_mode == "squash" else {"shortest_edge": edge},
            do_center_crop=self.crop_mode != "squash",
            crop_size=sides,
            resample=RESAMPLE[self.interpolation],
            image_mean=list(self.mean),
            image_std=list(self.std),
            do_convert_rgb=True,
        )

    def to_uint8(self, images: Sequence[Image]) -> torch.Tensor:
        """Resize and crop images.

        Args:
            images: RGB images of any size.

        Returns:
            uint8 (n, 3, height, width).
        """
        options = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
        pixels = self.processor()([crop_long_image(image, self) for image in images], **options)["pixel_values"]
        return pixels.round().clamp(0, 255).to(torch.uint8)

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Return images as the network needs them: float32, in the same shape.

        Args:
            images: uint8 (n, 3, height, width).

        Returns:
            float32 (n, 3, height, width), on the device of `images`.
        """
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images.to(torch.float32) / 255.0 - mean) / std


def _is_moderate(number: float) -> bool:
    return -LARGEST_NUMBER <= number <= LARGEST_NUMBER  # and no NaN


def crop_long_image(image: Image, preprocessing: Preprocessing) -> Image:
    """Return an image, or its middle if it is so long that resizing it would take much memory."""
    if preprocessing.crop_mode == "squash":
        return image
    short_side, edge = min(image.size), min(preprocessing.input_size[1:]) / preprocessing.crop_pct
    longest = max(short_side, int(short_side * MAX_RESIZED_PIXELS / edge**2))
    if max(image.size) <= longest:
        return image
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _processor_name(config: Mapping[str, Any]) -> str:
    """Return the name of the transformers class that a ``preprocessor_config.json`` is for.

    Raises:
        FormatError: the class is none of `PROCESSORS`.
    """
    extractor = str(config.get("feature_extractor_type"))  # the key of files from before transformers 4.26
    name = str(config.get("image_processor_type", extractor.replace("FeatureExtractor", "ImageProcessor")))
    name = name.removesuffix("Fast").removesuffix("Pil")
    if name not in PROCESSORS:
        raise FormatError(f"{name[:60]} is not supported; supported: {', '.join(PROCESSORS)}")
    return name


def _translate_processor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the config of a transformers image processor to fields of a timm ``pretrained_cfg``.

    Raises:
        FormatError: the processor does something that `Preprocessing` cannot do.
    """
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if config.get(step) is not True:
            raise FormatError(f"{step} = {str(config.get(step))[:40]} is not supported")
    if not math.isclose(config["rescale_factor"], 1 / 255, rel_tol=1e-3):
        raise FormatError(f"rescale_factor {str(config['rescale_factor'])[:40]} is not supported: it must be 1/255")
    names = {number: name for name, number in RESAMPLE.items()}
    fields = {"mean": config["image_mean"], "std": config["image_std"], "interpolation": names[int(config["resample"])]}
    size, crop = config["size"], config.get("crop_size")
    edge, sides = size.get("shortest_edge"), (size.get("height"), size.get("width"))
    if config["image_processor_type"].startswith("ConvNext"):
        if edge >= CONVNEXT_SQUASHES:
            return fields | {"input_size": (3, edge, edge), "crop_pct": 1.0, "crop_mode": "squash"}
        return fields | {"input_size": (3, edge, edge), "crop_pct": config["crop_pct"]}
    if not config.get("do_center_crop") and all(sides):
        return fields | {"input_size": (3, *sides), "crop_pct": 1.0, "crop_mode": "squash"}
    if config.get("do_center_crop") and edge:
        height, width = crop["height"], crop["width"]  # type: ignore[index]
        return fields | {"input_size": (3, height, width), "crop_pct": min(height, width) / edge}
    raise FormatError(f"size {size} with crop_size {crop} is not supported")
