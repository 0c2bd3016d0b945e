"""Nets as torch exports them, read back into torch: the same numbers, a training step, and the same file again."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from builders import feeds_for, run_ort

from srr_onnx.graph.load import load_model
from srr_onnx.graph.save import save_model

torch = pytest.importorskip("torch", reason="the bridge needs torch")

from srr_onnx.finetuning.bridge import from_torch, to_torch  # noqa: E402
from tests.zoo.test_exports import export, make  # noqa: E402


def compute(module: Any, feeds: dict[str, Any]) -> Any:
    with torch.no_grad():
        return module(*(torch.tensor(feeds[name]) for name in module.inputs))[0].numpy()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["script", "script kept", "script dynamic", "dynamo", "dynamo kept"])
@pytest.mark.parametrize("name", ["resnet20", "mixed"])
def test_exports_train_and_come_back(name: str, form: str) -> None:
    proto = onnx.load_from_string(export(make(name), form))
    module = to_torch(load_model(proto)).eval()
    feeds = feeds_for(proto)
    (wanted,) = run_ort(proto, feeds).values()
    assert np.abs(compute(module, feeds) - wanted).max() <= 1e-4 * np.abs(wanted).max()
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    (found,) = module(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    found.square().mean().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    optimizer.step()
    back = onnx.load(save_model(from_torch(module), "trained.onnx"))
    assert [(node.op_type, node.name) for node in back.graph.node] == [(n.op_type, n.name) for n in proto.graph.node]
    assert (back.opset_import, back.metadata_props) == (proto.opset_import, proto.metadata_props)
    (after,) = run_ort(back, feeds).values()
    assert not np.allclose(after, wanted, rtol=1e-4)
    assert np.abs(compute(module.eval(), feeds) - after).max() <= 1e-4 * np.abs(after).max()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["script", "script kept"])
def test_gradients_are_those_of_the_net_that_was_exported(form: str) -> None:
    net = make("resnet20")
    module = to_torch(load_model(export(net, form)))
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    is_kept = form == "script kept"
    for one in (net, module):
        one.train(is_kept)
        found = one(x)
        (found[0] if isinstance(found, tuple) else found).square().mean().backward()
    theirs = dict(net.named_parameters())
    names = list(theirs) if is_kept else ["classifier.weight"]  # folded, the others are not the same tensors
    for name in names:
        scale = float(theirs[name].grad.abs().max())
        assert torch.allclose(module.tensor(name).grad, theirs[name].grad, rtol=1e-3, atol=1e-4 * scale), name
