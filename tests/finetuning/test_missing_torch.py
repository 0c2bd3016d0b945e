"""Without torch everything but fine-tuning works, and fine-tuning says what is missing."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import srr_onnx
from srr_onnx.errors import MissingDependencyError
try:
    import srr_onnx.finetuning.bridge
except MissingDependencyError as error:
    print(error)
"""


def test_the_pip_command_is_given() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout == "fine-tuning needs PyTorch, which is not installed: pip install 'srr-onnx[finetune]'\n"
