"""Torch functions of ONNX operators, one file per family. Importing this package fills the registry."""

from srr_onnx.finetuning.operators import (
    joining,
    logic,
    making,
    reducing,
    selecting,
    shaping,
)

__all__ = ["joining", "logic", "making", "reducing", "selecting", "shaping"]
