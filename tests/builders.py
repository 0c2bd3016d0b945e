"""Tiny models for tests: a graph is written down node by node, shapes and version differences are looked after.

>>> g = Graph(opset=13)
>>> x = g.input("x", (1, 3, 4, 4))
>>> g.output(g.conv(g("Relu", g.conv(x, 8)), 2))
'Conv_2'
>>> [node.op_type for node in g.model().graph.node]
['Conv', 'Relu', 'Conv']
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper, shape_inference

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

# From these versions on an attribute is an input: operator -> attribute -> (version, input slot).
_MOVED: dict[str, dict[str, tuple[int, int]]] = {
    "Squeeze": {"axes": (13, 1)},
    "Unsqueeze": {"axes": (13, 1)},
    "ReduceSum": {"axes": (13, 1)},
    "Split": {"split": (13, 1)},
    "Clip": {"min": (11, 1), "max": (11, 2)},
    "Pad": {"pads": (11, 1), "value": (11, 2)},
    "Slice": {"starts": (10, 1), "ends": (10, 2), "axes": (10, 3), "steps": (10, 4)},
    "TopK": {"k": (10, 1)},
    "Reshape": {"shape": (5, 1)},
    "Dropout": {"ratio": (12, 1)},
} | {
    f"Reduce{kind}": {"axes": (18, 1)}
    for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
}


class Graph:
    """A model under construction; calling it adds a node and gives the name of its (first) output.

    Attributes that a later operator version takes as an input (`axes` of Squeeze, `pads` of Pad ...) may always be
    given as attributes: they become constants where the opset wants that.

    Args:
        opset: Version of the standard operators.
        seed: Seed of the random weights.
    """

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.rng = np.random.default_rng([seed, 20_24])
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: dict[str, Array] = {}
        self.outputs: list[str] = []
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, int] = {}
        self.dynamic: dict[str, dict[int, str]] = {}
        self.parents: dict[str, set[str]] = {}
        self.recorded: list[str] = []
        self._counts: dict[str, int] = {}

    def fresh(self, stem: str) -> str:
        """A name that nothing has."""
        self._counts[stem] = self._counts.get(stem, -1) + 1
        return f"{stem}_{self._counts[stem]}"

    def input(
        self, name: str, shape: Sequence[int], dtype: int = TensorProto.FLOAT, dynamic: Mapping[int, str] | None = None
    ) -> str:
        """Add a graph input; `dynamic` names the axes whose size the file leaves open."""
        self.dynamic[name] = dict(dynamic or {})
        dims = [self.dynamic[name].get(axis, size) for axis, size in enumerate(shape)]
        self.inputs.append(helper.make_tensor_value_info(name, dtype, dims))
        self.shapes[name], self.dtypes[name] = tuple(shape), dtype
        return name

    def constant(self, array: Any, name: str = "", dtype: Any = None) -> str:
        """Add an initializer."""
        array = np.asarray(array, dtype)
        name = name or self.fresh("const")
        self.initializers[name] = array
        self.shapes[name], self.dtypes[name] = array.shape, helper.np_dtype_to_tensor_dtype(array.dtype)
        return name

    def ints(self, *values: int, name: str = "") -> str:
        """Add an int64 vector."""
        return self.constant(np.array(values, np.int64), name or self.fresh("ints"))

    def weight(self, *shape: int, name: str = "", scale: float | None = None, offset: float = 0.0) -> str:
        """Add a random float initializer, scaled so that a product with it keeps its size."""
        if scale is None:
            scale = 1 / np.sqrt(max(1, int(np.prod(shape[1:]))))
        array = (self.rng.standard_normal(shape) * scale + offset).astype(np.float32)
        return self.constant(array, name or self.fresh("weight"))

    def __call__(
        self, op_type: str, *inputs: str, name: str | None = None, outputs: int | Sequence[str] = 1, shape: Any = None,
        domain: str = "", **attributes: Any,
    ) -> Any:  # fmt: skip
        """Add a node.

        Args:
            op_type: Operator.
            inputs: Value names.
            name: Node name; made up by default, and also the output's name then.
            outputs: How many outputs, or their names.
            shape: Shape of the first output, where inference cannot know it. For Reshape: its target.
            domain: Operator domain.
            attributes: Attributes.

        Returns:
            Name of the output, or the list of names if there are several.
        """
        operands = list(inputs)
        if op_type == "Reshape" and shape is not None:
            attributes["shape"], shape = list(shape), None
        for key, (version, slot) in _MOVED.get(op_type, {}).items():
            if key in attributes and self.opset >= version:
                value = attributes.pop(key)
                operands += [""] * (slot + 1 - len(operands))
                kind = np.float32 if op_type in ("Clip", "Dropout") or key == "value" else np.int64
                operands[slot] = self.constant(np.array(value, kind), self.fresh(key))
        stem = self.fresh(op_type)
        if isinstance(outputs, int):
            made = [stem] if outputs == 1 else [f"{stem}_{part}" for part in "abcdefgh"[:outputs]]
        else:
            made = list(outputs)
        node = helper.make_node(
            op_type, operands, made, name=stem if name is None else name, domain=domain, **attributes
        )
        self.nodes.append(node)
        self._infer(node, shape)
        for output in made:
            self.parents[output] = set(operands) - {""}
        return made[0] if len(made) == 1 else made

    def _infer(self, node: onnx.NodeProto, shape: Shape | None) -> None:
        if shape is not None:
            self.shapes[node.output[0]] = tuple(shape)
            self.dtypes[node.output[0]] = self.dtypes.get(node.input[0], TensorProto.FLOAT)
            return
        known = {name for name in node.input if name in self.shapes}
        if not onnx.defs.has(node.op_type, node.domain) or known != set(node.input) - {""}:
            return
        types = {name: helper.make_tensor_type_proto(self.dtypes[name], self.shapes[name]) for name in known}
        data = {
            name: numpy_helper.from_array(self.initializers[name], name)
            for name in known
            if name in self.initializers and self.initializers[name].size < 64
        }
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        opsets = [helper.make_opsetid("", self.opset)]
        inferred = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=opsets)
        for name, kind in inferred.items():
            dims = kind.tensor_type.shape.dim
            if kind.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
                self.shapes[name] = tuple(dim.dim_value for dim in dims)
                self.dtypes[name] = kind.tensor_type.elem_type

    def conv(
        self, x: str, filters: int, kernel: int = 1, *, bias: bool = True, group: int = 1, name: str | None = None,
        weight: str = "", **attributes: Any,
    ) -> str:  # fmt: skip
        """Add a convolution with a weight of its own; a kernel of 3 is padded."""
        name = name or self.fresh("Conv")
        channels, rank = self.shapes[x][1], len(self.shapes[x]) - 2
        weight = weight or self.weight(filters, channels // group, *[kernel] * rank, name=f"{name}.weight")
        operands = [x, weight]
        if bias:
            operands.append(self.weight(filters, name=f"{name}.bias", scale=0.5))
        if kernel > 1 and "pads" not in attributes and "auto_pad" not in attributes:
            attributes["pads"] = [kernel // 2 * attributes.get("dilations", [1])[0]] * (2 * rank)
        if group > 1:
            attributes["group"] = group
        return str(self("Conv", *operands, name=name, outputs=[name], **attributes))

    def record(self, name: str) -> str:
        """Write the shape of a float value into the file, where inference cannot know it."""
        self.recorded.append(name)
        self.dtypes[name] = TensorProto.FLOAT
        return name

    def output(self, name: str) -> str:
        """Make a value a graph output."""
        if name not in self.outputs:
            self.outputs.append(name)
        return name

    def model(self, ir_version: int | None = None, **fields: Any) -> onnx.ModelProto:
        """Build the protobuf."""
        opset = helper.make_opsetid("", self.opset)
        outputs = []
        for name in self.outputs:
            dims: list[Any] | None = list(self.shapes[name]) if name in self.shapes else None
            if dims and any(self.dynamic.values()):
                dims = [f"{name}_{axis}" for axis in range(len(dims))]
            outputs.append(helper.make_tensor_value_info(name, self.dtypes.get(name, TensorProto.FLOAT), dims))
        graph = helper.make_graph(
            self.nodes,
            fields.pop("graph_name", "g"),
            self.inputs,
            outputs,
            [numpy_helper.from_array(array, name) for name, array in self.initializers.items()],
            value_info=[helper.make_tensor_value_info(n, self.dtypes[n], self.shapes[n]) for n in self.recorded],
        )
        least = max(8, helper.find_min_ir_version_for([opset], ignore_unknown=True))
        domains = {node.domain for node in self.nodes} - {""}
        imports = [opset, *(helper.make_opsetid(domain, 1) for domain in sorted(domains))]
        return helper.make_model(graph, opset_imports=imports, ir_version=ir_version or least, **fields)


def feeds_for(
    model: onnx.ModelProto, seed: int = 0, batch: int = 1, sizes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Random inputs for a model; open sizes by name, those not named are taken as the batch."""
    stored = {init.name for init in model.graph.initializer}
    found = {}
    for value in model.graph.input:
        if value.name in stored:
            continue
        kind = value.type.tensor_type
        shape = [dim.dim_value or (sizes or {}).get(dim.dim_param, batch) for dim in kind.shape.dim]
        rng = np.random.default_rng([seed, zlib.crc32(value.name.encode())])
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        array = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        found[value.name] = array.astype(dtype)
    return found


def run_ort(
    model: onnx.ModelProto, feeds: Mapping[str, Array], optimized: bool = False, outputs: Sequence[str] | None = None
) -> dict[str, Array]:
    """Run a protobuf in onnxruntime, with all graph optimizations or with none."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()] if outputs is None else list(outputs)
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def varint(value: int) -> bytes:
    """A number as protobuf writes it: seven bits per byte, lowest first, the top bit says that more follow."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def load_recipe(name: str) -> ModuleType:
    """Import a script of `models/`, which is no package."""
    path = Path(__file__).resolve().parents[1] / "models" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
