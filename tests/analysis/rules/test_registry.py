"""Every operator version that has a rule has a row in one of the tables."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import rows as table

from srr_onnx.analysis import rules as _rules  # noqa: F401 - fills the registry
from srr_onnx.analysis.rule import rules

ROOT = Path(__file__).parents[3]
FAMILIES = [
    "attention", "convolution", "elementwise", "joining", "linear", "normalization", "picking", "quantization",
    "recurrent", "reduction", "reshaping", "scattering", "sequences", "spatial", "stretching",
]  # fmt: skip


def known_versions() -> set[tuple[str, int]]:
    """Versions in the registry that ONNX has; a rule may list more, shared as it is between operators."""
    real = {
        (schema.name, schema.since_version) for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain
    }
    return {(op_type, version) for domain, op_type, version in rules if not domain} & real


def test_every_rule_has_a_row() -> None:
    tested = {(row.op_type, row.version) for name in FAMILIES for row in importlib.import_module(f"test_{name}").ROWS}
    missing = {
        (op_type, version)
        for op_type, version in known_versions() - tested
        if any(table.since(op_type, opset) == version for opset in range(table.OLDEST, table.LAST + 1))
    }
    # Upsample 10 is the version that took the operator away: no model can hold it.
    assert missing == {("Upsample", 10)}


def test_every_rule_names_a_version_that_exists() -> None:
    known = {op_type for op_type, _ in known_versions()}
    assert {op_type for _, op_type, _ in rules} == known


@pytest.mark.parametrize("op_type", sorted({op_type for _, op_type, _ in rules}))
def test_rules_say_what_they_do(op_type: str) -> None:
    for key in rules:
        if key[1] == op_type:
            assert (rules.get(key).propagate.__doc__ or "").strip(), f"the rule of {key} has no docstring"


def test_the_page_of_operators_is_up_to_date() -> None:
    found = subprocess.run([sys.executable, "tools/write_operators.py", "--check"], cwd=ROOT, capture_output=True)
    assert found.returncode == 0, found.stderr.decode()
