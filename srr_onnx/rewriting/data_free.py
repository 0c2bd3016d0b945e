"""REWRITE: compensation without samples, from the normalizations that the file still has.

Source:
    The distribution is that of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
    ICCV 2019, arXiv:1906.04721, section 4.2; here channels are correlated, and removed ones regressed on the others.
"""

from __future__ import annotations

import numpy as np

from srr_onnx.calibration.gaussians import draw_activations
from srr_onnx.graph.model import Model
from srr_onnx.rewriting.regression import Regression
from srr_onnx.rewriting.transfer import Kept, Transfer, find_readers

RIDGE = 0.01


def find_transfers(model: Model, kept: Kept, seed: int = 0) -> dict[str, Transfer]:
    """Express removed channels by those that stay, on draws from the distribution that normalizations state.

    Args:
        model: The original.
        kept: Positions that stay, by `(value, axis)`.
        seed: For the draws.

    Returns:
        By the output of each layer that lost inputs and whose inputs follow from normalizations.

    Raises:
        ModelError: onnxruntime cannot run a part of the model.
    """
    readers = {layer.output for layer in find_readers(model, kept)}
    found = {}
    for layer, draws in draw_activations(model, seed):
        if layer.output not in readers or draws.shape[1] != layer.channels:
            continue
        stays = kept[layer.source, layer.source_axis]
        is_kept = np.isin(np.arange(layer.channels), stays)
        coefficients, constants = np.zeros((layer.channels, layer.channels)), np.zeros(layer.channels)
        for channels in np.arange(layer.channels).reshape(layer.blocks, -1):
            inside, gone = channels[is_kept[channels]], channels[~is_kept[channels]]
            if not len(gone) or not len(inside):
                continue
            regression = Regression(len(inside), len(draws), has_offset=True)
            regression.add(draws[:, None, inside], draws[:, None, gone])
            solution = regression.solve(RIDGE)
            coefficients[np.ix_(inside, gone)] = solution.change[0]
            constants[gone] = solution.offset[0]
        found[layer.output] = Transfer(coefficients, constants)
    return found
