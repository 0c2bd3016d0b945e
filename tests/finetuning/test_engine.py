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


def test_a_package_beside_lightning_that_cannot_be_imported_is_named(monkeypatch):
    class Broken:
        """Finds one module, which cannot be imported."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "lightning":
                raise RuntimeError("operator torchvision::nms does not exist")

    for name in [name for name in sys.modules if name.partition(".")[0] == "lightning"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(MissingDependencyError, match=r"torchvision::nms does not exist.* uninstall it"):
        runpy.run_path(engine.__file__)


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
