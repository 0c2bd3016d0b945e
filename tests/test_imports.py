"""What an import loads, seen from a fresh interpreter: a command that needs no runtime must not wait for one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_package_loads_no_torch() -> None:
    assert not loaded_by("import srr_onnx") & {"torch", "onnxruntime", "click", "rich"}


def test_the_stages_load_no_torch() -> None:
    statement = "import srr_onnx.graph.load, srr_onnx.analysis.find, srr_onnx.rewriting.apply"
    assert not loaded_by(statement) & {"torch", "onnxruntime", "click", "rich"}


@pytest.mark.skipif(importlib.util.find_spec("srr_onnx.cli.main") is None, reason="no command line yet")
def test_the_command_line_starts_without_runtime() -> None:
    assert not loaded_by("import srr_onnx.cli.main") & {"torch", "onnxruntime"}


def test_options_of_data_load_nothing_that_reads_them() -> None:
    assert not loaded_by("import srr_onnx.cli.data_options") & {"PIL", "yaml", "pydantic", "torch", "onnxruntime"}
