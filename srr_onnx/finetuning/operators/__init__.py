"""Torch functions of ONNX operators, one file per family. Importing this package fills the registry."""

from srr_onnx.finetuning.operators import activation, convolution, elementwise, linear, normalization, pooling

__all__ = ["activation", "convolution", "elementwise", "linear", "normalization", "pooling"]
