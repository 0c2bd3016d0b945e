import logging
import runpy
import sys
import types
import warnings

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from srr_onnx.errors import MissingDependencyError, TrainingError
from srr_onnx.finetuning import engine
from srr_onnx.finetuning.options import TrainingOptions
from srr_onnx.finetuning.trainer import fit


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


@pytest.mark.parametrize(
    ("devices", "text", "kind"),
    [
        (2, "[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer", TrainingError),
        (2, "mat1 and mat2 shapes cannot be multiplied", RuntimeError),
        (1, "gloo is none of one process's", RuntimeError),
    ],
)
def test_a_process_that_loses_the_others_says_so(devices, text, kind):
    def break_down(*values, **options):
        raise RuntimeError(text)

    trainer = types.SimpleNamespace(callbacks=[], fit=break_down)
    training = types.SimpleNamespace(options=TrainingOptions(devices=devices))
    with pytest.raises(kind) as caught:
        fit(trainer, training, None, None, None)
    assert str(caught.value).startswith("the connection to another process") is (kind is TrainingError)
