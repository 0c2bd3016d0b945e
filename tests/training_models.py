"""A small network, its pruned form and pictures for tests of training."""

from __future__ import annotations

import numpy as np
import onnx
from builders import Graph

CLASSES = 4


def net(*, norms=False, channels=8, seed=0, head="conv", softmax=False):
    """Two convolutions, pooled into four classes; the first is called `first`, what it gives after Relu `Relu_0`."""
    g = Graph(seed=seed)
    x = g.input("image", (1, 3, 8, 8), dynamic={0: "batch"})
    for name in ("first", "second"):
        x = g.conv(x, channels, 3, name=name, bias=not norms)
        if norms:
            scale = g.constant(np.ones(channels, np.float32), f"{name}.scale")
            rest = [g.constant(np.zeros(channels, np.float32), f"{name}.{part}") for part in ("shift", "mean")]
            x = g("BatchNormalization", x, scale, *rest, g.constant(np.ones(channels, np.float32), f"{name}.var"))
        x = g("Relu", x)
    x = g("GlobalAveragePool", x)
    x = g.conv(x, CLASSES, 1, name="head")
    g.output(g("Softmax", x, axis=1) if softmax else x)
    return g.model()


def save_net(path, **options):
    """The same in a file."""
    onnx.save(net(**options), path)
    return path


def pictures(count=96, seed=0):
    """Pictures of 8x8 pixels whose class tells which channel is bright, and at which side for the last."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    x = rng.integers(0, 120, (count, 3, 8, 8))
    for row, label in zip(x, labels, strict=True):
        row[label % 3] += 60 if label < 3 else 0
    return x.astype(np.uint8), labels.astype(np.int64)


def save_pictures(path, count=96, seed=0, labelled=True):
    """The same in an .npz."""
    x, labels = pictures(count, seed)
    np.savez(path, image=x, **({"labels": labels} if labelled else {}))
    return path
