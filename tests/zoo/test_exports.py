"""Nets as torch exports them: both exporters, BatchNormalization folded and kept, fixed and dynamic batch."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from builders import load_recipe

from srr_onnx.graph.load import load_model
from srr_onnx.pipeline import prune

torch = pytest.importorskip("torch")
nn = torch.nn


class Shuffle(nn.Module):
    """A ShuffleNetV2 unit: split, depthwise branch, concat, channel shuffle."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x):
        kept, changed = x.chunk(2, dim=1)
        x = torch.cat([kept, self.branch(changed)], 1)
        batch, channels, height, width = x.shape
        return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


class Mixed(nn.Module):
    """Shuffles, squeeze and excitation, a grouped convolution, a chunked and concatenated branch, a dense head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.units = nn.Sequential(Shuffle(16), Shuffle(16))
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), nn.Sigmoid()
        )
        self.grouped = nn.Conv2d(16, 24, 3, 1, 1, groups=4)
        self.inner = nn.Conv2d(12, 12, 3, 1, 1)
        self.head = nn.Linear(36 * 4 * 4, 5)

    def forward(self, x):
        x = self.units(self.stem(x))
        x = self.grouped(x * self.gate(x))
        first, second = x.split(12, dim=1)
        x = torch.cat([first, second, second + self.inner(second)], 1)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


def make(name):
    torch.manual_seed(0)
    nets = load_recipe("nets")
    net = {"resnet20": nets.resnet20, "vgg7": nets.vgg7_bn}[name](9) if name != "mixed" else Mixed()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return net.eval()


def export(net, form):
    buffer, image = io.BytesIO(), torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form.startswith("dynamo"):
            program = torch.onnx.export(net, (image,), dynamo=True, verbose=False, optimize=form != "dynamo kept")
            return program.model_proto.SerializeToString()
        torch.onnx.export(
            net, (image,), buffer, dynamo=False, opset_version=17, input_names=["image"],
            do_constant_folding=form != "script kept",
            training=torch.onnx.TrainingMode.PRESERVE if form == "script kept" else torch.onnx.TrainingMode.EVAL,
            dynamic_axes={"image": {0: "batch"}} if form == "script dynamic" else None,
        )  # fmt: skip
    return buffer.getvalue()


# MACs left when every group loses half its units: a net whose channels are all reached is left with a quarter, and a
# little more for the layers that read the image.
MOST_LEFT = {"resnet20": 0.27, "vgg7": 0.26, "mixed": 0.40}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["script", "script kept", "script dynamic", "dynamo", "dynamo kept"])
@pytest.mark.parametrize("name", list(MOST_LEFT))
def test_exports_are_pruned_and_proven(name, form):
    model = load_model(export(make(name), form))
    half = prune(model, ratio=0.5, criterion="l1")
    assert half.plan.proof["relative_error"] < 1e-4
    assert half.plan.after.macs <= MOST_LEFT[name] * half.plan.before.macs
    redundant = prune(model, flops=0.44)
    assert 0.44 <= redundant.plan.macs_removed <= 0.445 or name == "mixed"
    assert redundant.plan.proof["relative_error"] < 1e-4
    if form == "script dynamic":
        assert runs_at_batch(half.model, 3)


def runs_at_batch(model, batch):
    from srr_onnx.targets.onnxruntime import Session

    feeds = {"image": np.random.default_rng(0).standard_normal((batch, 3, 16, 16)).astype(np.float32)}
    return all(len(value) == batch for value in Session(model).run(feeds).values())
