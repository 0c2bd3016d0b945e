"""Torch functions of ONNX operators, one file per family. Importing this package fills the registry."""

from srr_onnx.finetuning.operators import (
    activation,
    attention,
    convolution,
    elementwise,
    joining,
    linear,
    logic,
    making,
    normalization,
    pooling,
    recurrent,
    reducing,
    resizing,
    sampling,
    selecting,
    shaping,
)

__all__ = [
    "activation",
    "attention",
    "convolution",
    "elementwise",
    "joining",
    "linear",
    "logic",
    "making",
    "normalization",
    "pooling",
    "recurrent",
    "reducing",
    "resizing",
    "sampling",
    "selecting",
    "shaping",
]
