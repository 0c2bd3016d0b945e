"""Files with a batch written into them, at other batches."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import Graph, feeds_for, run_ort

from srr_onnx.errors import DataError
from srr_onnx.graph.load import load_model

torch = pytest.importorskip("torch", reason="the bridge needs torch")

from srr_onnx.finetuning.bridge import to_torch  # noqa: E402


def fixed(kind: str, batch: int = 1) -> onnx.ModelProto:
    g = Graph(opset=13)
    x = g.conv(g.input("x", (batch, 4, 6, 6)), 4)
    if kind == "flat":
        g.output(g("Gemm", g("Reshape", x, shape=[batch, -1]), g.weight(5, 144), transB=1))
    elif kind == "heads":  # the batch is a factor of the first size
        y = g("Reshape", x, shape=[batch * 2, 2, 36])
        g.output(g("Reshape", g("MatMul", y, g.weight(36, 3)), shape=[batch, 4, 3]))
    elif kind == "enlarged":
        sizes = g.ints(batch, 4, 12, 12)
        g.output(g("Resize", x, "", "", sizes, mode="nearest", shape=(batch, 4, 12, 12)))
    elif kind == "over the batch":
        g.output(g("ReduceMean", x, axes=[0], keepdims=0))
    elif kind == "behind other axes":
        y = g("Transpose", x, perm=[1, 0, 2, 3])
        g.output(g("Reshape", y, shape=[4, batch * 36]))
    return g.model()


@pytest.mark.parametrize("kind", ["flat", "heads", "enlarged"])
@pytest.mark.parametrize("batch", [1, 2])
def test_other_batches_are_what_single_runs_are(kind: str, batch: int) -> None:
    proto = fixed(kind, batch)
    module = to_torch(load_model(proto)).eval()
    parts = [feeds_for(proto, seed=seed)["x"] for seed in range(3)]
    wanted = np.concatenate([next(iter(run_ort(proto, {"x": part}).values())) for part in parts])
    with torch.no_grad():
        found = module(torch.tensor(np.concatenate(parts)))[0].numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert module.train()(torch.randn(5 * batch, 4, 6, 6))[0].shape == (5 * batch, *wanted.shape[1:])


@pytest.mark.parametrize("kind", ["over the batch", "behind other axes"])
def test_what_means_something_else_at_another_batch_is_refused(kind: str) -> None:
    module = to_torch(load_model(fixed(kind)))
    assert module(torch.randn(1, 4, 6, 6))[0].numel() == 144
    for _ in range(2):
        with pytest.raises(DataError, match="the file has a batch of 1 written into it, and means something else"):
            module(torch.randn(3, 4, 6, 6))
    assert module.training
