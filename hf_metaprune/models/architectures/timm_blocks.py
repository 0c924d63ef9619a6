"""timm's ResNet blocks, sliced: the output of a branch is added into the stream at the kept channels only."""

from __future__ import annotations

import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn


class AddingBasicBlock(BasicBlock):
    """A `BasicBlock` whose last norm is a `ScatterBatchNorm2d`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stream = x if self.downsample is None else self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        if self.drop_path is not None:
            x = self.drop_path(x)
        return self.act2(self.bn2.add_to(stream, x, fresh=self.downsample is not None))


class AddingBottleneck(Bottleneck):
    """A `Bottleneck` whose last norm is a `ScatterBatchNorm2d`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stream = x if self.downsample is None else self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.act2(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        if self.drop_path is not None:
            x = self.drop_path(x)
        return self.act3(self.bn3.add_to(stream, x, fresh=self.downsample is not None))


ADDING_CLASSES: dict[type[nn.Module], type[nn.Module]] = {BasicBlock: AddingBasicBlock, Bottleneck: AddingBottleneck}
"""The class that a sliced block gets, per class of timm."""
