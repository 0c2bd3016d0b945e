"""Architectures of the small image classifiers that the recipes in this folder train.

Reads nothing; makes `torch.nn.Module` objects for images of shape `(N, 3, 32, 32)` with values in `[0, 1]`.
No convolution has a bias; all but those of the dense network are followed by a BatchNormalization, the form most
trained CNNs have.
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


class PreActivation(nn.Sequential):
    """Batch normalization, ReLU and a bias-free convolution, in this order."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        """Make the three; "same" padding."""
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
        super().__init__(nn.BatchNorm2d(in_channels), nn.ReLU(), conv)


class DenseNet(nn.Module):
    """Every layer of a block reads all layers before it, joined by Concat; normalization comes before convolution.

    Source:
        Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, arXiv:1608.06993, sec. 3 and 4.2:
        three blocks without bottleneck or compression.
    """

    def __init__(self, num_classes: int, layers_per_block: int, growth: int) -> None:
        """Make a network of `3 * layers_per_block + 4` weighted layers."""
        super().__init__()
        width = 2 * growth
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for block in range(3):
            layers = nn.ModuleList()
            for _ in range(layers_per_block):
                layers.append(PreActivation(width, growth, 3))
                width += growth
            self.blocks.append(layers)
            if block < 2:
                self.transitions.append(nn.Sequential(PreActivation(width, width, 1), nn.AvgPool2d(2)))
        self.head = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images `(N, 3, H, W)` to logits `(N, num_classes)`."""
        features = self.stem(image)
        for block, layers in enumerate(self.blocks):
            for layer in layers:  # type: ignore[union-attr]
                features = torch.cat([features, layer(features)], dim=1)
            if block < len(self.transitions):
                features = self.transitions[block](features)
        return self.classifier(self.head(features))


class InvertedResidual(nn.Module):
    """Widening 1x1, depthwise 3x3 and linear 1x1 convolution, with a shortcut where the shape stays.

    Source:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, arXiv:1801.04381.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        """Make a block of inner width `expansion * in_channels`."""
        super().__init__()
        inner = expansion * in_channels
        widen = [_make_conv_norm(in_channels, inner, 1), nn.ReLU6()] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen, _make_depthwise(inner, stride), nn.ReLU6(), _make_conv_norm(inner, out_channels, 1)
        )
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(N, I, H, W)` to `(N, O, H / stride, W / stride)`."""
        result = self.layers(features)
        return features + result if self.has_shortcut else result


class MobileNet(nn.Module):
    """MobileNetV2 for images of 32x32: the stem and the first two reductions keep the size.

    Source:
        Sandler et al., CVPR 2018, arXiv:1801.04381, table 2. Deviates: strides, as is usual for CIFAR.
    """

    # Expansion, channels, blocks, stride of the first.
    STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, num_classes: int, width: float) -> None:
        """Make a network of all widths times `width`."""
        super().__init__()
        channels = max(8, int(32 * width))
        self.features = nn.Sequential(_make_conv_norm(3, channels, 3), nn.ReLU6())
        for expansion, out_channels, blocks, stride in self.STAGES:
            for block in range(blocks):
                out = max(8, int(out_channels * width))
                self.features.append(InvertedResidual(channels, out, stride if block == 0 else 1, expansion))
                channels = out
        self.features.extend([_make_conv_norm(channels, 4 * channels, 1), nn.ReLU6()])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(4 * channels, num_classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images `(N, 3, H, W)` to logits `(N, num_classes)`."""
        return self.head(self.features(image))


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half go through 1x1, depthwise 3x3, 1x1; then the halves are interleaved.

    Source:
        Ma et al., "ShuffleNet V2", ECCV 2018, arXiv:1807.11164, fig. 3 (c) and (d).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Make a unit; at stride 2 both halves read all channels and are convolved."""
        super().__init__()
        half, self.splits = out_channels // 2, stride == 1
        source = half if self.splits else in_channels
        self.main = nn.Sequential(
            _make_conv_norm(source, half, 1),
            nn.ReLU(),
            _make_depthwise(half, stride),
            _make_conv_norm(half, half, 1),
            nn.ReLU(),
        )
        self.side: nn.Module = nn.Identity()
        if not self.splits:
            self.side = nn.Sequential(
                _make_depthwise(in_channels, stride), _make_conv_norm(in_channels, half, 1), nn.ReLU()
            )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(N, I, H, W)` to `(N, O, H / stride, W / stride)`."""
        passed, read = features.chunk(2, dim=1) if self.splits else (features, features)
        joined = torch.cat([self.side(passed), self.main(read)], dim=1)
        count, channels, height, width = joined.shape
        pairs = joined.reshape(count, 2, channels // 2, height, width).transpose(1, 2)
        return pairs.reshape(count, channels, height, width)


class ShuffleNet(nn.Module):
    """ShuffleNetV2 for images of 32x32: stride 1 in the stem and no pooling after it.

    Source:
        Ma et al., ECCV 2018, arXiv:1807.11164, table 5. Deviates: stem, as is usual for CIFAR.
    """

    def __init__(self, num_classes: int, widths: tuple[int, int, int], last: int) -> None:
        """Make a network with the given widths of the three stages and of the last convolution."""
        super().__init__()
        channels = 24
        self.features = nn.Sequential(_make_conv_norm(3, channels, 3), nn.ReLU())
        for width, units in zip(widths, (4, 8, 4), strict=True):
            for unit in range(units):
                self.features.append(ShuffleUnit(channels, width, 2 if unit == 0 else 1))
                channels = width
        self.features.extend([_make_conv_norm(channels, last, 1), nn.ReLU()])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(last, num_classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images `(N, 3, H, W)` to logits `(N, num_classes)`."""
        return self.head(self.features(image))


def _make_depthwise(channels: int, stride: int) -> nn.Sequential:
    """Make a bias-free depthwise 3x3 convolution and its batch normalization."""
    conv = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


def resnet20(num_classes: int) -> ResNet:
    """Make a 20-layer residual network with 16, 32 and 64 channels, about 0.27 million parameters."""
    return ResNet(num_classes, num_blocks=3, widths=(16, 32, 64))


def resnet56(num_classes: int) -> ResNet:
    """Make a 56-layer residual network with 16, 32 and 64 channels, about 0.86 million parameters."""
    return ResNet(num_classes, num_blocks=9, widths=(16, 32, 64))


def vgg7_bn(num_classes: int) -> PlainNet:
    """Make a plain network of 7 convolutions with 64 to 256 channels, about 1.7 million parameters."""
    return PlainNet(num_classes, widths=(64, 64, 128, 128, 256, 256, 256), pool_after=frozenset({1, 3, 5}))


def vgg16_bn(num_classes: int) -> PlainNet:
    """Make the 13 convolutions of VGG-16 at half width, 32 to 256 channels, about 3.7 million parameters.

    The global average pool stands where VGG-16 has its fifth max-pool.
    """
    widths = (32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256, 256)
    return PlainNet(num_classes, widths, pool_after=frozenset({2, 4, 7, 10}))


def densenet40(num_classes: int) -> DenseNet:
    """Make a 40-layer dense network with a growth of 12, about 1.0 million parameters."""
    return DenseNet(num_classes, layers_per_block=12, growth=12)


def mobilenet_v2(num_classes: int) -> MobileNet:
    """Make a MobileNetV2 of half width, about 0.6 million parameters."""
    return MobileNet(num_classes, width=0.5)


def shufflenet_v2(num_classes: int) -> ShuffleNet:
    """Make a ShuffleNetV2 of widths 116, 232 and 464, about 1.3 million parameters."""
    return ShuffleNet(num_classes, widths=(116, 232, 464), last=1024)


NETS: dict[str, Callable[[int], nn.Module]] = {
    "resnet20": resnet20,
    "resnet56": resnet56,
    "vgg7_bn": vgg7_bn,
    "vgg16_bn": vgg16_bn,
    "densenet40": densenet40,
    "mobilenet_v2": mobilenet_v2,
    "shufflenet_v2": shufflenet_v2,
}
