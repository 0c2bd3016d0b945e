"""LSTM, GRU, RNN: their inputs are summed over, their hidden units feed each other."""

from __future__ import annotations

import pytest
import rows as table
from builders import Graph
from rows import Row, rows

VERSIONS = (7, 14, 22)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def steps(g: Graph, y: str, op: str, directions: int = 1) -> str:
    """Columns of the map as a sequence: (16, 1, 8) in, (16, directions, 1, 6) out."""
    sequence = g("Transpose", g("Reshape", y, shape=[1, 8, 16]), perm=[2, 0, 1])
    gates = GATES[op]
    weights = [
        g.weight(directions, gates * 6, 8, scale=0.3, name="W"),
        g.weight(directions, gates * 6, 6, scale=0.3, name="R"),
        g.weight(directions, 2 * gates * 6, name="B"),
    ]
    form = {"direction": "bidirectional"} if directions == 2 else {}
    return str(g(op, sequence, *weights, hidden_size=6, shape=(16, directions, 1, 6), **form))


def inputs_only(g: Graph, y: str, op: str) -> str:
    """Hidden units are reduced by a rule that keeps them, so that only the exact part is left."""
    made = steps(g, y, op)
    found = g("Cast", g("ArgMax", made, axis=3, keepdims=1), to=1)
    return str(g("Transpose", g("Reshape", found, shape=[1, 4, 4, 1]), perm=[0, 3, 1, 2]))


@pytest.mark.parametrize("row", rows("LSTM GRU RNN", VERSIONS, inputs_only, axes=frozenset({(1, 2)})), ids=str)
def test_row(row: Row) -> None:
    table.check(row)


ROWS = rows("LSTM GRU RNN", VERSIONS, inputs_only, axes=frozenset({(1, 2)}))


@pytest.mark.parametrize("op_type", sorted(GATES))
@pytest.mark.parametrize("directions", [1, 2])
def test_hidden_units_go_inexactly_in_all_gates_and_directions(op_type: str, directions: int) -> None:
    g = Graph(14)
    y = steps(g, g.conv(g.input("x", (1, 3, 4, 4)), 8), op_type, directions)
    g.output(g("MatMul", y, g.weight(6, 2)))
    model = table.load_model(g.model())
    groups = table.find_groups(model)
    assert [(group.size, group.is_exact) for group in groups] == [(8, True), (6, False)]
    rows_of_w = next(member for member in groups[1].members if member.initializer == "W" and member.axis == 1)
    assert rows_of_w.positions[1].tolist() == [1 + 6 * gate for gate in range(GATES[op_type])]
    is_kept = table.halve(groups)
    pruned = table.onnx.load(str(table.save_model(table.prune_units(model, groups, is_kept), "pruned.onnx")))
    got, before = table.run(pruned), table.run(g.model())
    assert {name: value.shape for name, value in got.items()} == {name: value.shape for name, value in before.items()}
