from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders import Graph, feeds_for, run_ort
from onnx import TensorProto

from srr_onnx.finetuning.bridge import to_torch
from srr_onnx.graph.load import load_model


@pytest.mark.parametrize("attributes", [{"axis": 1}, {"axis": 1, "keepdims": 0}, {"axis": 1, "sizes": (1, 3)}])
@pytest.mark.parametrize("new_axis", [0, 1])
def test_parts_and_what_is_joined_of_them(attributes: dict[str, Any], new_axis: int) -> None:
    sizes = attributes.get("sizes")
    plain = {name: value for name, value in attributes.items() if name != "sizes"}
    g = Graph(opset=13)
    y = g.conv(g.input("x", (2, 3, 5, 5)), 4)
    parts = g("SplitToSequence", *([y] if sizes is None else [y, g.ints(*sizes)]), **plain, shape=(1,))
    last = g("SequenceAt", parts, g.constant(np.int64(-1)), shape=(1,))
    again = g("SequenceConstruct", last, last, shape=(1,))
    made = g.output(g("ConcatFromSequence", again, axis=2, new_axis=new_axis, shape=(1,)))
    del g.shapes[made]  # the shapes above are not those of the values
    proto = g.model()
    assert proto.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    module = to_torch(load_model(proto))
    feeds = feeds_for(proto)
    (found,) = module(torch.tensor(feeds["x"]))
    (wanted,) = run_ort(proto, feeds).values()
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    found.sum().backward()
    assert module.tensor("Conv_0.weight").grad[-1].abs().sum() > 0
