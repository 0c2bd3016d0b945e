"""Every stage that is told has words for people who watch."""

from __future__ import annotations

import re
from pathlib import Path

import srr_onnx
from srr_onnx.cli.progress import TEXTS

PACKAGE = Path(srr_onnx.__file__).parent


def test_every_stage_has_words():
    told = {
        stage
        for path in PACKAGE.rglob("*.py")
        for stage in re.findall(r'\b_?(?:tell|on_stage)(?:, |\()"(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert "time" in told and "probe" in told
    assert told == set(TEXTS)
