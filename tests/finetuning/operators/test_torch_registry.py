from __future__ import annotations

import onnx
import pytest

from srr_onnx.finetuning.operators.call import OPERATORS
from tests.finetuning.node_cases import NEWEST, cases_of

OLDEST = 7
OP_TYPES = sorted({op_type for domain, op_type, _ in OPERATORS if not domain})
# Operators that ONNX has no case of a single node for: another test computes them.
GENERATED = {
    "ConcatFromSequence": "tests/finetuning/operators/test_torch_sequences.py",
    "GlobalLpPool": "tests/finetuning/operators/test_torch_pooling.py",
    "SequenceAt": "tests/finetuning/operators/test_torch_sequences.py",
    "SequenceConstruct": "tests/finetuning/operators/test_torch_sequences.py",
}


def test_every_operator_has_a_case() -> None:
    assert {op_type for op_type in OP_TYPES if not cases_of(op_type)} == set(GENERATED)


@pytest.mark.parametrize("op_type", OP_TYPES)
def test_versions_are_those_of_the_operator_sets(op_type: str) -> None:
    current, withdrawn = set(), set()
    for opset in range(OLDEST, NEWEST + 1):
        if onnx.defs.has(op_type, opset):
            schema = onnx.defs.get_schema(op_type, opset)
            (withdrawn if schema.deprecated else current).add(schema.since_version)
    registered = {version for domain, name, version in OPERATORS if (domain, name) == ("", op_type)}
    assert current <= registered <= current | withdrawn
