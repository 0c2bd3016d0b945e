import importlib
import logging
import runpy
import sys
import warnings

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from srr_onnx.errors import MissingDependencyError
from srr_onnx.finetuning import engine


def test_without_lightning_there_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(MissingDependencyError, match=r"needs Lightning, .*: pip install 'srr-onnx\[finetune"):
        runpy.run_path(engine.__file__)


def test_a_torchvision_that_cannot_be_imported_counts_as_not_installed(monkeypatch):
    checks = importlib.import_module("lightning_utilities.core.imports")
    load = importlib.import_module

    def fail(name):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return load(name)

    monkeypatch.setattr(engine.importlib, "import_module", fail)
    monkeypatch.setattr(checks, "_version", lambda name: "0.1")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert checks.RequirementCache("torchvision")
    with engine._without_broken_torchvision():
        assert not checks.RequirementCache("torchvision")
        assert checks.RequirementCache("torch>=0.1")
    assert checks.RequirementCache("torchvision")
    assert "torchvision" not in sys.modules


def test_what_lightning_says_is_not_heard_and_what_others_say_is(capsys):
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    with engine.quietly():
        logger.warning("a tip")
        warnings.warn("for developers", stacklevel=1)
    assert capsys.readouterr() == ("", "")
    assert logger.level == level
    with pytest.warns(UserWarning, match="heard again"):
        warnings.warn("heard again", stacklevel=1)
