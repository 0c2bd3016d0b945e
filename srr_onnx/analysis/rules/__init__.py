"""Channel rules, one file per operator family. Importing this package fills the registry."""

from srr_onnx.analysis.rules import (
    attention,
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
    scattering,
    sequences,
    spatial,
    stretching,
)

__all__ = [
    "attention",
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
    "scattering",
    "sequences",
    "spatial",
    "stretching",
]
