"""The quantised copy of a file: onnxruntime's static quantisation, int8 between QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from deploy.arrays import Array

# DequantizeLinear has one scale per channel from here on.
_OPSET = 13


class Feeds(CalibrationDataReader):
    """Samples in the form that onnxruntime's calibration asks for.

    Args:
        feeds: Arrays by input name, with batch axis.
    """

    def __init__(self, feeds: Iterable[Mapping[str, Array]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Array] | None:
        """The next sample; None after the last."""
        return next((dict(feed) for feed in self._feeds), None)


def quantize(source: Path, target: Path, feeds: Iterable[Mapping[str, Array]]) -> None:
    """Write a quantised copy.

    Args:
        source: The file.
        target: File to write.
        feeds: Samples to calibrate with.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        model = onnx.load(source)
        if next(entry.version for entry in model.opset_import if entry.domain == "") < _OPSET:
            onnx.save(version_converter.convert_version(model, _OPSET), prepared)
            source = prepared
        # Folds normalizations into convolutions and infers shapes, as onnxruntime advises before quantisation.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Processors without VNNI add pairs of products in 16 bits, which 8-bit weights overflow; 7-bit ones do not.
            reduce_range=True,
        )
