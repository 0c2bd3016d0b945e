"""Models that take pictures of any shape, and pictures in files."""

from __future__ import annotations

import json

import numpy as np
import onnx
from builders import Graph
from onnx import TensorProto
from PIL import Image

from srr_onnx.graph.load import load_model


def picture_model(shape=(1, 3, 8, 8), dtype=TensorProto.FLOAT, metadata=None, name="image"):
    """A model that returns its input."""
    g = Graph()
    g.output(g("Identity", g.input(name, shape, dtype)))
    proto = g.model()
    if metadata:
        onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in metadata.items()})
    return load_model(proto)


def two_input_model():
    g = Graph()
    image, extra = g.input("image", (1, 3, 8, 8)), g.input("extra", (1, 4))
    g.output(g("Relu", image))
    g.output(g("Relu", extra))
    return load_model(g.model())


def random_pixels(count, shape=(3, 8, 8), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def save_picture(path, pixels=None, color=(10, 20, 30), size=(8, 8)):
    """Write one picture: pixels `(3, H, W)`, or one color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, color) if pixels is None else Image.fromarray(np.moveaxis(pixels, 0, -1).copy())
    image.save(path)
    return path


def read_all(dataset, size=64):
    """All samples of a data set, by input name."""
    batches = list(dataset.batches(size))
    return {name: np.concatenate([batch.feeds[name] for batch in batches]) for name in batches[0].feeds}
