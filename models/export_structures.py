"""Export small nets with the structures of detectors, segmentation and text recognition, with seeded random weights.

Weights and checks are those of `export_torchvision.py`; the nets are written out here, each as small as shows its
structure: a U-Net (skips into Concat, ConvTranspose), a detector (C2f blocks with Split, SPPF, a pyramid, a DFL head, a
tail with NonMaxSuppression) and a CRNN (convolutions, bidirectional LSTM, GRU).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import click
import numpy as np
import onnx
import torch
from export_torchvision import FOLDER, check_agreement, make_images, parse_choice, prepare_net, run_onnx, run_torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

SIZE = 96
CLASSES, BINS = 4, 16


class Block(nn.Sequential):
    """Convolution, normalization, SiLU."""

    def __init__(self, inputs: int, filters: int, kernel: int = 1, stride: int = 1) -> None:
        """Make the layers; the padding keeps the size at stride 1."""
        conv = nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(filters), nn.SiLU())


class C2f(nn.Module):
    """Split in two halves, a chain of bottlenecks behind the second, all parts joined."""

    def __init__(self, inputs: int, filters: int, depth: int) -> None:
        """Make `depth` bottlenecks."""
        super().__init__()
        half = filters // 2
        self.first = Block(inputs, filters)
        self.chain = nn.ModuleList(nn.Sequential(Block(half, half, 3), Block(half, half, 3)) for _ in range(depth))
        self.last = Block((2 + depth) * half, filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run on `(N, C, H, W)`."""
        parts = list(self.first(x).chunk(2, 1))
        for inner in self.chain:
            parts.append(parts[-1] + inner(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Sppf(nn.Module):
    """Three poolings one behind the other, all joined."""

    def __init__(self, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.first, self.last = Block(channels, channels // 2), Block(channels * 2, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run on `(N, C, H, W)`."""
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    """Two scales, a pyramid in both directions, boxes as distributions over bins (DFL)."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.stem = nn.Sequential(Block(3, 16, 3, 2), Block(16, 32, 3, 2), C2f(32, 32, 1))
        self.third = nn.Sequential(Block(32, 64, 3, 2), C2f(64, 64, 2))
        self.fourth = nn.Sequential(Block(64, 128, 3, 2), C2f(128, 128, 1), Sppf(128))
        self.up = nn.Upsample(scale_factor=2)
        self.top, self.down, self.bottom = C2f(192, 64, 1), Block(64, 64, 3, 2), C2f(192, 128, 1)
        self.boxes = nn.ModuleList(nn.Sequential(Block(c, 32, 3), nn.Conv2d(32, 4 * BINS, 1)) for c in (64, 128))
        self.classes = nn.ModuleList(nn.Sequential(Block(c, 32, 3), nn.Conv2d(32, CLASSES, 1)) for c in (64, 128))
        self.expectation = nn.Conv2d(BINS, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run on `(N, 3, H, W)`; boxes `(N, A, 4)` and class scores `(N, CLASSES, A)`."""
        x = self.stem(x)
        third = self.third(x)
        fourth = self.fourth(third)
        top = self.top(torch.cat([self.up(fourth), third], 1))
        bottom = self.bottom(torch.cat([self.down(top), fourth], 1))
        heads = [
            torch.cat([boxes(level), classes(level)], 1)
            for level, boxes, classes in zip((top, bottom), self.boxes, self.classes, strict=True)
        ]
        joined = torch.cat([head.view(head.shape[0], 4 * BINS + CLASSES, -1) for head in heads], 2)
        boxes, scores = joined.split((4 * BINS, CLASSES), 1)
        count, _, anchors = boxes.shape
        spread = boxes.view(count, 4, BINS, anchors).transpose(2, 1).softmax(1)
        near, far = self.expectation(spread).view(count, 4, anchors).chunk(2, 1)
        return torch.cat([-near, far], 1).transpose(1, 2), scores.sigmoid()


class UNet(nn.Module):
    """Two levels down, two up."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.first = nn.Sequential(Block(3, 16, 3), Block(16, 16, 3))
        self.second = nn.Sequential(nn.MaxPool2d(2), Block(16, 32, 3))
        self.third = nn.Sequential(nn.MaxPool2d(2), Block(32, 64, 3))
        self.up_second, self.join_second = nn.ConvTranspose2d(64, 32, 2, 2), Block(64, 32, 3)
        self.up_first, self.join_first = nn.ConvTranspose2d(32, 16, 2, 2), Block(32, 16, 3)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run on `(N, 3, H, W)`; `(N, 2, H, W)`."""
        first = self.first(x)
        second = self.second(first)
        x = self.join_second(torch.cat([self.up_second(self.third(second)), second], 1))
        return self.head(self.join_first(torch.cat([self.up_first(x), first], 1)))


class Crnn(nn.Module):
    """Columns of a feature map as a sequence."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.features = nn.Sequential(
            *(Block(3, 16, 3), nn.MaxPool2d(4), Block(16, 32, 3), nn.MaxPool2d(4), Block(32, 64, 3))
        )
        self.lstm = nn.LSTM(64 * (SIZE // 16), 32, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(64, 16, batch_first=True)
        self.head = nn.Linear(16, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run on `(N, 3, H, W)`; `(N, W / 16, 11)`."""
        x = self.features(x)
        count, channels, height, width = x.shape
        x = x.permute(0, 3, 1, 2).reshape(count, width, channels * height)
        return self.head(self.gru(self.lstm(x)[0])[0])


NETS = {"unet": UNet, "yolo": Detector, "crnn": Crnn}
OUTPUT_NAMES = {"yolo": ("boxes", "scores")}
DYNAMIC = {"plain": (), "dynbatch": (0,), "dynhw": (0, 2, 3)}


def add_suppression(path: Path) -> None:
    """Put NonMaxSuppression behind the detector's outputs; boxes and scores stay outputs."""
    model = onnx.load(path)
    graph = model.graph
    limits = {"most": np.array(10, np.int64), "overlap": np.array(0.5, np.float32), "least": np.array(0.1, np.float32)}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in limits.items())
    graph.node.append(helper.make_node("NonMaxSuppression", ["boxes", "scores", *limits], ["selected"], "suppress"))
    graph.output.append(helper.make_tensor_value_info("selected", TensorProto.INT64, [None, 3]))
    onnx.checker.check_model(model)
    onnx.save(model, path)


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Folder to write to.")
@click.option("--nets", callback=parse_choice(tuple(NETS)), help="Comma-separated net names.  [default: all]")
def main(out: Path, nets: list[str]) -> None:
    """Export the nets as NET.FORM.onnx: with fixed sizes, a dynamic batch, and dynamic height and width."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    out.mkdir(parents=True, exist_ok=True)
    for name in nets:
        torch.manual_seed(0)
        net = prepare_net(NETS[name]().eval(), SIZE, is_shared=False)
        if name == "yolo":
            net.expectation.weight.copy_(torch.arange(BINS).float().view(1, BINS, 1, 1))
        images, names = make_images(1, SIZE, seed=3), OUTPUT_NAMES.get(name, ("output",))
        for form, axes in DYNAMIC.items():
            if name == "crnn" and 2 in axes:
                continue  # the height becomes a size of the LSTM
            path = out / f"{name}.{form}.onnx"
            labels = {axis: "nchw"[axis] for axis in axes}
            torch.onnx.export(
                *(net, (images,), str(path)),
                dynamo=False,
                opset_version=17,
                input_names=["input"],
                output_names=list(names),
                dynamic_axes={"input": labels} if axes else {},
            )
            if name == "yolo":
                add_suppression(path)
            expected = run_torch(net, images)
            error = check_agreement(expected, run_onnx(path, {"input": images.numpy()})[: len(expected)])
            click.echo(f"{path.name:<24} error {error:.1e}")


if __name__ == "__main__":
    main()
