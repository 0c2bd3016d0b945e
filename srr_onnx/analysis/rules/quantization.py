"""Rules of QuantizeLinear and DequantizeLinear: a change of number format, position by position.

A weight that is stored as integers is sliced behind its DequantizeLinear like any other, and its scales and zero
points go with its channels. Operators that compute with integers (QLinearConv, ConvInteger, MatMulInteger) have no
rule: what reaches them stays.

Source: ONNX operators QuantizeLinear and DequantizeLinear, versions 10 to 25. Scales per axis come with version 13,
scales per block with 21; the others differ in element types only.
"""

from __future__ import annotations

from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.analysis.rule import CannotFollow, Op, channel_rule


@channel_rule("QuantizeLinear", "DequantizeLinear", since=(10, 13, 19, 21, 23, 24, 25))
def quantize(op: Op) -> None:
    """The channels stay what they are; scales and zero points per axis lie along them, blocks along an axis keep it."""
    x, shape = op.axes(0), op.shape(0)
    for slot in (1, 2):
        if not op.has(slot) or op.shape(slot) in ((), (1,)):
            continue
        own, axis = op.axes(slot), op.attribute("axis", 1)
        if op.attribute("block_size", 0):
            block_axis = op.axis(axis, len(x))
            op.freeze([x[block_axis], own[block_axis]], FreezeReason.LAYOUT, "quantized in blocks")
            for place in range(len(x)):
                if place != block_axis:
                    op.unify(x[place], own[place])
        elif len(own) == 1 and op.shape(slot)[0] == shape[op.axis(axis, len(x))]:
            op.unify(x[op.axis(axis, len(x))], own[0])
        else:
            raise CannotFollow(FreezeReason.UNKNOWN_SHAPE, "scales that fit no axis")
    op.out(x)
