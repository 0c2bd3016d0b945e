"""Channel rules, one file per operator family. Importing this package fills the registry."""

from srr_onnx.analysis.rules import (
    convolution,
    elementwise,
    joining,
    linear,
    normalization,
    picking,
    quantization,
    recurrent,
    reduction,
    reshaping,
    spatial,
)

__all__ = [
    "convolution",
    "elementwise",
    "joining",
    "linear",
    "normalization",
    "picking",
    "quantization",
    "recurrent",
    "reduction",
    "reshaping",
    "spatial",
]
