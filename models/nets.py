"""Architectures of the small image classifiers that the recipes in this folder train.

Reads nothing; makes `torch.nn.Module` objects for images of shape `(N, 3, 32, 32)` with values in `[0, 1]`.
Every convolution has no bias and is followed by a BatchNormalization, the form most trained CNNs have.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def _make_conv_norm(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Make a bias-free convolution with "same" padding and its batch normalization."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, joined by one addition.

    Source:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385, fig. 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Make a block; the shortcut is a 1x1 projection where the shape changes, else the identity."""
        super().__init__()
        self.conv1 = _make_conv_norm(in_channels, out_channels, 3, stride)
        self.conv2 = _make_conv_norm(out_channels, out_channels, 3)
        # Option B of the paper. The padded shortcut of option A would export as Slice and Pad
        # and tie the channels of one stage to an offset in the next.
        is_same_shape = stride == 1 and in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity()
        if not is_same_shape:
            self.shortcut = _make_conv_norm(in_channels, out_channels, 1, stride)

    def forward(self, image_features: torch.Tensor) -> torch.Tensor:
        """Map `(N, I, H, W)` to `(N, O, H / stride, W / stride)`."""
        inner = torch.relu(self.conv1(image_features))
        return torch.relu(self.conv2(inner) + self.shortcut(image_features))


class ResNet(nn.Module):
    """Residual network in CIFAR form: three stages, global average pool, one dense layer.

    Source:
        He et al., CVPR 2016, arXiv:1512.03385, sec. 4.2. Deviates: projection shortcuts (option B).
    """

    def __init__(self, num_classes: int, num_blocks: int, widths: tuple[int, int, int]) -> None:
        """Make a network of `6 * num_blocks + 2` weighted layers; `widths` are the channels of the stages."""
        super().__init__()
        self.stem = _make_conv_norm(3, widths[0], 3)
        self.stages = nn.Sequential()
        in_channels = widths[0]
        for stage_index, width in enumerate(widths):
            strides = [1 if stage_index == 0 else 2] + [1] * (num_blocks - 1)
            for stride in strides:
                self.stages.append(BasicBlock(in_channels, width, stride))
                in_channels = width
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(in_channels, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images `(N, 3, H, W)` to logits `(N, num_classes)`."""
        features = self.stages(torch.relu(self.stem(image)))
        return self.classifier(torch.flatten(self.pool(features), 1))


class PlainNet(nn.Module):
    """A chain of 3x3 convolutions with max-pools between, global average pool, one dense layer.

    Source:
        Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015, arXiv:1409.1556.
        Deviates: batch normalization, fewer layers, a global average pool in place of the dense layers.
    """

    def __init__(self, num_classes: int, widths: tuple[int, ...], pool_after: frozenset[int]) -> None:
        """Make a network; `widths` has one entry per convolution, `pool_after` counts them from 1."""
        super().__init__()
        self.features = nn.Sequential()
        in_channels = 3
        for number, width in enumerate(widths, start=1):
            self.features.append(_make_conv_norm(in_channels, width, 3))
            self.features.append(nn.ReLU())
            if number in pool_after:
                self.features.append(nn.MaxPool2d(2))
            in_channels = width
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(in_channels, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images `(N, 3, H, W)` to logits `(N, num_classes)`."""
        return self.classifier(torch.flatten(self.pool(self.features(image)), 1))


def resnet20(num_classes: int) -> ResNet:
    """Make a 20-layer residual network with 16, 32 and 64 channels, about 0.27 million parameters."""
    return ResNet(num_classes, num_blocks=3, widths=(16, 32, 64))


def vgg7_bn(num_classes: int) -> PlainNet:
    """Make a plain network of 7 convolutions with 64 to 256 channels, about 1.7 million parameters."""
    return PlainNet(num_classes, widths=(64, 64, 128, 128, 256, 256, 256), pool_after=frozenset({1, 3, 5}))


NETS: dict[str, Callable[[int], nn.Module]] = {"resnet20": resnet20, "vgg7_bn": vgg7_bn}
