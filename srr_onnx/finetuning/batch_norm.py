"""FINE-TUNE: normalizations put back behind convolutions for training, and folded into them again.

Exporters fold BatchNormalization into the convolution before it, and a folded network that lost many channels hardly
trains. Put back with the statistics that the unpruned network has there, a normalization changes nothing at first and
brings every channel back to its old mean and spread in training. The file never sees it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from srr_onnx.errors import DataError
from srr_onnx.finetuning.torch_graph import TorchGraph, evaluating
from srr_onnx.finetuning.trainables import MOVERS, Readers, Variable
from srr_onnx.graph.edit import NewNames
from srr_onnx.graph.model import Node

# By the rank of what is normalized.
_NORMS: Mapping[int, Any] = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})
_NORMALIZATIONS = frozenset(
    {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization"}
    | {"LpNormalization", "MeanVarianceNormalization", "RMSNormalization"}
)
# With fewer numbers per channel in a batch its statistics are mostly noise.
_LEAST_SAMPLES = 50
# Share of a layer's mean variance that is added to each channel's: torch's epsilon, for outputs of any scale.
_EPSILON = 1e-5


def insert_norms(
    module: TorchGraph,
    batches: Iterable[torch.Tensor | Sequence[torch.Tensor]],
    *,
    reference: TorchGraph | None = None,
    kept: Mapping[str, Sequence[int]] | None = None,
    skip: Collection[str] = (),
    new_biases: bool = True,
) -> Mapping[str, nn.Module]:
    """Put a normalization behind every convolution that trains better with one.

    What the module computes stays the same until it is trained. Left out are the last convolutions before an output,
    those in front of another normalization, and those that give fewer than 50 numbers per channel in a batch.

    Args:
        module: The module; changed in place. Optimizers have to be made afterwards: there are new parameters.
        batches: Inputs, as many samples in each as training will take at once.
        reference: Module of the unpruned model, which the statistics are taken from; by default the module itself.
        kept: Channels that stayed, by the name of the value, where the reference has more.
        skip: Names of values that get none.
        new_biases: Whether a convolution without bias may get one when its normalization is folded.

    Returns:
        The normalizations, by the name of the value that they give.

    Raises:
        DataError: The batches are empty, or channels of the reference and of the module do not fit.

    Source:
        Ioffe, Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167, section 3. Deviates: scale and shift start
        at the spread and mean of the unpruned network, so that the function is unchanged.
    """
    chosen, reasons = _choose(module, skip, new_biases=new_biases)
    source = reference or module
    missing = [value for value in chosen if value not in source.model.producers]
    reasons.update((value, "the reference has no such value") for value in missing)
    watchers = {value: _Watcher() for value in chosen if value not in reasons}
    _observe(source, watchers, batches)
    for value, watcher in watchers.items():
        if watcher.least < _LEAST_SAMPLES:
            reasons[value] = f"fewer than {_LEAST_SAMPLES} numbers per channel in a batch"
            continue
        mean, variance = watcher.mean, watcher.square / watcher.count
        if kept is not None and value in kept:
            places = torch.as_tensor(np.asarray(kept[value], np.int64), device=mean.device)
            mean, variance = mean[places], variance[places]
        weight = module.tensor(chosen[value])
        if len(mean) != len(weight):
            raise DataError(
                f"the reference has {len(mean)} channels in {value!r}, the module {len(weight)}: give the plan that "
                "the model was pruned by"
            )
        key = re.sub(r"\W", "_", value)
        while hasattr(module.norms, key):  # names that differ in a dot only, or that torch has for something else
            key += "_"
        module.norms[key] = _make_norm(mean, variance, weight, is_training=module.training)
        module.norm_keys[value] = key
    module.rebuild()
    for reason in dict.fromkeys(reasons.values()):
        values = [repr(value) for value, given in reasons.items() if given == reason]
        module.notes.append(f"no normalization behind {', '.join(values)}: {reason}")
    return {value: module.norms[module.norm_keys[value]] for value in watchers if value in module.norm_keys}


def fold_norms(module: TorchGraph) -> None:
    """Put every normalization of `insert_norms` into the weight and bias of its convolution.

    Args:
        module: The module; changed in place. In evaluation mode it computes what it did before.
    """
    names, readers = NewNames(module.model), Readers(module.model)
    for value, key in list(module.norm_keys.items()):
        norm: Any = module.norms[key]
        node = module.model.producers[value]
        weight = module.tensor(_resolve(module, node, 1))
        with torch.no_grad():
            # In double precision: the result is rounded once.
            scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            bias = _own_bias(module, readers, node, names)
            bias.copy_((bias.double() - norm.running_mean.double()) * scale + norm.bias.double())
            weight.copy_(weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1)))
        del module.norms[key], module.norm_keys[value]
    module.rebuild()


class _Watcher(nn.Module):
    """Passes a value `(N, C, ...)` on, and takes mean and variance of its channels, over all batches, in double.

    Attributes:
        count: Numbers per channel so far.
        least: The fewest in one batch.
        mean: Their mean, `(C,)`.
        square: Sum of their squared distances from it, `(C,)`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count, self.least = 0, 0
        self.mean = self.square = torch.zeros((), dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        axes = [0, *range(2, x.dim())]
        variance, mean = (part.double() for part in torch.var_mean(x, axes, correction=0))
        new = x.numel() // x.shape[1]
        self.least = min(self.least, new) if self.count else new
        if not self.count:
            self.mean, self.square = mean, variance * new
        else:
            apart, total = mean - self.mean, self.count + new
            self.square = self.square + variance * new + apart**2 * (self.count * new / total)
            self.mean = self.mean + apart * (new / total)
        self.count += new
        return x


def _observe(
    module: TorchGraph, watchers: Mapping[str, _Watcher], batches: Iterable[torch.Tensor | Sequence[torch.Tensor]]
) -> None:
    """Run a module in evaluation mode, with watchers behind some values."""
    count = 0
    with evaluating(module):
        run = module.watch(watchers)
        for batch in batches:
            run(*((batch,) if isinstance(batch, torch.Tensor) else batch))
            count += 1
    if not count:
        raise DataError("there are no samples to take the statistics of normalizations from: give some")


def _make_norm(mean: torch.Tensor, variance: torch.Tensor, weight: torch.Tensor, *, is_training: bool) -> nn.Module:
    """A normalization that changes nothing where mean and variance are those given."""
    epsilon = _EPSILON * float(variance.mean()) or _EPSILON
    norm: nn.Module = _NORMS[weight.dim()](len(mean), eps=epsilon, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        for target, content in (
            (norm.running_mean, mean),
            (norm.running_var, variance),
            (norm.weight, torch.sqrt(variance + epsilon)),
            (norm.bias, mean),
        ):
            assert isinstance(target, torch.Tensor)
            target.copy_(content)
    return norm.train(is_training)


def _choose(module: TorchGraph, skip: Collection[str], *, new_biases: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Convolutions that get a normalization, as value and weight; the reasons of those that get none."""
    chosen: dict[str, str] = {}
    reasons: dict[str, str] = {}
    readers = Readers(module.model)
    for node in module.nodes:
        if node.op_type != "Conv" or node.domain:
            continue
        value, weight = node.outputs[0], _resolve(module, node, 1)
        if value in module.norm_keys:
            continue
        if value in skip:
            reasons[value] = "left out by choice"
        elif not _is_own(module, readers, weight, (node.index, 1)) or module.tensor(weight).dim() not in _NORMS:
            reasons[value] = "its weight does not learn, or not alone"
        elif not (new_biases or node.input(2)):
            reasons[value] = "it has no bias"
        elif any(reader.op_type in _NORMALIZATIONS for reader in _followers(module, value, MOVERS)):
            reasons[value] = "another normalization follows"
        elif not any(reader.op_type in _PRODUCTS for reader in _followers(module, value)):
            reasons[value] = "it is the last before an output"
        else:
            chosen[value] = weight
    return chosen, reasons


def _followers(module: TorchGraph, value: str, through: Collection[str] | None = None) -> Iterable[Node]:
    """Nodes behind a value; through any but Softmax, behind which a product adds up shares, or through some only."""
    waiting, seen = [value], {value}
    inside = {node.index for node in module.nodes}
    while waiting:
        for node in module.model.consumers.get(waiting.pop(), ()):
            if node.index not in inside:
                continue
            yield node
            if node.op_type in through if through is not None else node.op_type != "Softmax":
                waiting += [name for name in node.outputs if name and name not in seen]
                seen.update(node.outputs)


def _resolve(module: TorchGraph, node: Node, slot: int) -> str:
    """Name of the tensor that a slot reads; of one that learns, also where Identity nodes lie between."""
    read = name = module.wiring().get((node.index, slot), node.input(slot))
    while name not in module.variables:
        maker = module.model.producers.get(name)
        if maker is None or maker.op_type != "Identity":
            return read
        name = maker.inputs[0]
    return name


def _is_own(module: TorchGraph, readers: Readers, name: str, use: tuple[int, int]) -> bool:
    """Whether a tensor learns and no other use reads it."""
    variable = module.variables.get(name)
    if variable is None or not variable.is_trainable:
        return False
    wired = module.wiring()
    return list(variable.uses or (one for one in readers.of(name) if one not in wired)) == [use]


def _own_bias(module: TorchGraph, readers: Readers, node: Node, names: NewNames) -> torch.Tensor:
    """The bias of a convolution, made its own where it has none or shares it."""
    use = (node.index, 2)
    name = _resolve(module, node, 2)
    if name and _is_own(module, readers, name, use):
        return module.tensor(name)
    weight = module.tensor(_resolve(module, node, 1))
    content = module.tensor(name).detach().clone() if name else weight.detach().new_zeros(len(weight))
    new = names.take(f"{node.outputs[0]}_bias")
    while new in module.variables:
        new = names.take(f"{node.outputs[0]}_bias")
    module.add_tensor(new, content, is_trainable=True)
    module.variables[new] = Variable(new, node.input(2) or node.inputs[1], (use,), True)
    module.notes.append(f"{node.label!r} has a bias of its own now, {new!r}")
    return module.tensor(new)
