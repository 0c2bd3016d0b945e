"""REWRITE: compensation from the weights alone: a removed channel goes into the one that is most like it.

Source:
    Kim et al., "Neuron Merging: Compensating for Pruned Neurons", NeurIPS 2020, arXiv:2010.13160, section 3.3 (most
    similar neuron by cosine, scaled by the ratio of the norms).
"""

from __future__ import annotations

import numpy as np

from srr_onnx.analysis.groups import Groups, PruningGroup, Role
from srr_onnx.calibration.layers import find_layers
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.transfer import Kept, Transfer, find_readers
from srr_onnx.scoring.slices import Slices

# Channels whose filters are less alike than this are not merged.
LEAST_COSINE = 0.1
# ... and where a channel is more than the output of one filter (a sum, behind a depthwise convolution), than this.
LEAST_COSINE_OF_SUMS = 0.95
# Nor does a channel take over one that is so many times larger: its own noise would be magnified.
_LARGEST_RATIO = 4.0
_RECTIFIERS = frozenset({"Relu", "Clip", "HardSwish", "Swish", "Gelu", "LeakyRelu", "PRelu"})
_POOLING = frozenset({"AveragePool", "Dropout", "Flatten", "GlobalAveragePool", "Identity", "MaxPool", "Reshape"})


def find_merges(model: Model, groups: Groups, kept: Kept) -> dict[str, Transfer]:
    """Find for every removed unit the one that takes its weights over.

    Args:
        model: The original.
        groups: Result of `find_groups(model)`.
        kept: Positions that stay, by `(value, axis)`.

    Returns:
        By the output of each layer that lost inputs.
    """
    partners: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    found = {}
    dense = frozenset(layer.output for layer in find_layers(model) if layer.blocks == 1)
    for layer in find_readers(model, kept):
        units = groups.values[layer.source, layer.source_axis]
        stays = np.isin(np.arange(layer.channels), kept[layer.source, layer.source_axis])
        coefficients = np.zeros((layer.channels, layer.channels))
        is_rectified, is_plain = _find_origin(model, layer.source, dense)
        least = LEAST_COSINE if is_plain else LEAST_COSINE_OF_SUMS
        for group in groups:
            by_unit = group.locate(units)
            if by_unit is None or stays[by_unit].all():
                continue
            if group.id not in partners:
                partners[group.id] = _find_partners(model, group, stays[by_unit[:, 0]])
            partner, ratio, likeness = partners[group.id]
            share = ratio * (_rectified(likeness) if is_rectified else likeness)
            share = np.where(likeness > least, share, 0.0)
            for gone in np.flatnonzero(share > 0):
                coefficients[by_unit[partner[gone]], by_unit[gone]] = share[gone]
        if coefficients.any():
            found[layer.output] = Transfer(coefficients, np.zeros(layer.channels))
    return found


def _find_origin(model: Model, value: str, dense: frozenset[str]) -> tuple[bool, bool]:
    """Whether a value holds no negative numbers, because of a ReLU; and whether a channel is the output of one filter.

    Args:
        model: The model.
        value: What a layer reads.
        dense: Outputs of the layers that are not grouped.
    """
    is_rectified = False
    while value not in dense:
        node = model.producers.get(value)
        if node is None or node.op_type not in _RECTIFIERS | _POOLING | {"BatchNormalization"}:
            return is_rectified, False
        is_rectified = is_rectified or node.op_type in _RECTIFIERS
        value = node.inputs[0]
    return is_rectified, True


def _rectified(cosines: np.ndarray) -> np.ndarray:
    """Regression of one rectified channel on another of the same size, by the cosine of their filters.

    Source:
        Cho and Saul, "Kernel Methods for Deep Learning", NIPS 2009, eq. 6 (arc-cosine kernel of degree 1).
    """
    angles = np.arccos(np.clip(cosines, -1, 1))
    return np.asarray((np.sin(angles) + (np.pi - angles) * np.cos(angles)) / np.pi)


def _find_partners(model: Model, group: PruningGroup, is_kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The unit that takes each removed one over, how much larger it is (0 where none does), and how alike they are."""
    slices = Slices(model, group)
    rows = np.concatenate([part.astype(np.float64) for part in slices.with_role(Role.FILTER)], axis=1)
    norms = np.linalg.norm(rows, axis=1)
    sizes = norms
    scales = slices.with_role(Role.SCALE)
    if len(scales) == 1 and scales[0].shape == (group.size, 1):  # behind it, only the scale says how large a channel is
        sizes = np.abs(scales[0][:, 0].astype(np.float64))
        rows = rows * np.sign(scales[0])
    unit = rows / np.maximum(norms, 1e-30)[:, None]
    cosines = unit @ unit.T
    cosines[:, ~is_kept] = -1
    cosines[sizes[:, None] > _LARGEST_RATIO * sizes[None, :]] = -1
    partner = cosines.argmax(axis=1)
    likeness = cosines[np.arange(group.size), partner]
    is_merged = ~is_kept & (likeness > LEAST_COSINE) & (norms > 0) & (sizes[partner] > 0)
    return partner, np.where(is_merged, sizes / np.maximum(sizes[partner], 1e-30), 0.0), likeness
