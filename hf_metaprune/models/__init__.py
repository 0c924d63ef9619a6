"""Networks: what can be pruned in them, and the sliced model."""

from . import timm_resnet, transformers_resnet  # noqa: F401  (each registers its families)
