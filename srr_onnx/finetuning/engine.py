"""FINE-TUNE: Lightning, imported in one place, and kept from talking."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

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


try:
    with quietly():
        import lightning
        import lightning.pytorch.loggers
        import lightning.pytorch.plugins
        import lightning.pytorch.strategies
except ImportError as error:
    raise MissingDependencyError(
        f"fine-tuning needs Lightning, which cannot be imported ({first_line(error)}): pip install 'srr-onnx[finetune]'"
    ) from None
except Exception as error:  # torchmetrics, which comes with Lightning, imports torchvision where there is one
    raise MissingDependencyError(
        f"Lightning cannot be imported ({first_line(error)}): a package beside it, torchvision as a rule, belongs to "
        "another torch; install the one that matches, or uninstall it, as nothing here needs it"
    ) from None

__all__ = ["lightning", "quietly"]
