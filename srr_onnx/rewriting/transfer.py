"""REWRITE: weights of removed channels put on channels that stay.

Where a removed channel is about `kept @ coefficients + constant`, its weights in the layers that read it, multiplied
with the coefficients, are added to theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from srr_onnx.calibration.layers import LinearLayer, find_layers
from srr_onnx.graph.edit import Edits, apply_edits
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.sinks import find_sink, is_changeable, prepare

Array = np.ndarray[Any, Any]
Kept = Mapping[tuple[str, int], Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Transfer:
    """What the input channels of a layer are made of, for all that are removed.

    Attributes:
        coefficients: Shape `(channels, channels)`; row: channel that stays, column: channel that goes; 0 elsewhere, and
            between channels of different blocks.
        constants: Shape `(channels,)`.
    """

    coefficients: Array
    constants: Array


def apply_transfers(
    model: Model, pruned: Model, kept: Kept, transfers: Mapping[str, Transfer], *, keep_structure: bool = False
) -> tuple[Model, list[str], int]:
    """Change the weights of a pruned model.

    Args:
        model: The original.
        pruned: The pruned model; not changed.
        kept: Positions that stay, by `(value, axis)`.
        transfers: By the layer's output.
        keep_structure: Whether no bias may be created.

    Returns:
        The model, the nodes that changed, and how many biases were created.
    """
    originals = {layer.output: layer for layer in find_layers(model)}
    # Where whole groups of a grouped convolution went, nothing reads them any more.
    wanted = {
        layer.output
        for layer in find_layers(pruned)
        if layer.output in transfers and originals[layer.output].blocks == layer.blocks
    }
    offsets = {output for output in wanted if transfers[output].constants.any()}
    prepared, created = prepare(pruned, wanted, offsets, keep_structure=keep_structure)
    contents: dict[str, Array] = {}
    nodes = []
    for layer in find_layers(prepared):
        if layer.output not in wanted or not is_changeable(prepared, layer):
            continue
        before = originals[layer.output]
        transfer = transfers[layer.output]
        stays = kept[before.source, before.source_axis]
        made = kept.get((before.output, before.output_axis), np.arange(before.outputs))
        whole = before.to_matrix(model.constants[before.weight]).astype(np.float64)
        added, offset = np.zeros((layer.blocks, layer.columns, layer.outputs // layer.blocks)), []
        for block in range(layer.blocks):
            width, height = before.outputs // before.blocks, before.channels // before.blocks
            columns = made[made // width == block] % width
            channels = np.arange(block * height, (block + 1) * height)
            rows = whole[block].reshape(height, before.taps, width)[:, :, columns]
            inside = stays[stays // height == block]
            part = transfer.coefficients[np.ix_(inside, channels)]
            added[block] = np.einsum("kd,dto->kto", part, rows).reshape(layer.columns, -1)
            offset.append(np.einsum("d,dto->o", transfer.constants[channels], rows))
        weight = prepared.constants[layer.weight]
        contents[layer.weight] = layer.from_matrix(layer.to_matrix(weight) + added).astype(weight.dtype)
        sink = find_sink(prepared, layer)
        if sink is not None and layer.output in offsets:
            contents[sink.constant] = sink.add(prepared.constants[sink.constant], np.concatenate(offset))
        nodes.append(layer.node.label)
    return (apply_edits(prepared, Edits(tensors=contents)) if contents else pruned), nodes, created


def find_readers(model: Model, kept: Kept) -> list[LinearLayer]:
    """Layers of the original that lose inputs; depthwise ones are none, whose channels are not summed over."""
    return [
        layer
        for layer in find_layers(model)
        if (layer.source, layer.source_axis) in kept and layer.channels > layer.blocks
    ]
