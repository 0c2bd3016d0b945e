"""FINE-TUNE: Lightning, imported in one place, and kept from talking.

It comes with torchmetrics, which imports torchvision where that is installed; one that does not match torch then ends
the import, although nothing here needs it. It is left out in that case.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from srr_onnx.errors import MissingDependencyError, first_line

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "torch.distributed", "torch.nn.parallel")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what Lightning and torch say for developers from the user, while the block runs."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _without_broken_torchvision() -> Iterator[None]:
    """Let torchvision count as not installed, while the block runs, where it cannot be imported."""
    try:
        importlib.import_module("torchvision")
    except ImportError:
        yield
        return
    except Exception:
        pass
    else:
        yield
        return
    checks: Any = importlib.import_module("lightning_utilities.core.imports")
    find_version = checks._version

    def find_others(name: str) -> Any:
        if name == "torchvision":
            raise importlib.metadata.PackageNotFoundError(name)
        return find_version(name)

    checks._version, sys.modules["torchvision"] = find_others, None  # type: ignore[assignment]
    try:
        yield
    finally:
        checks._version = find_version
        del sys.modules["torchvision"]


try:
    with quietly(), _without_broken_torchvision():
        import lightning
        import lightning.pytorch.loggers
        import lightning.pytorch.plugins
        import lightning.pytorch.strategies
except ImportError as error:
    raise MissingDependencyError(
        f"fine-tuning needs Lightning, which cannot be imported ({first_line(error)}): pip install 'srr-onnx[finetune]'"
    ) from None

__all__ = ["lightning", "quietly"]
