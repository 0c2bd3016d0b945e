"""FINE-TUNE: training of an exported graph in torch, and back into the same file. The only home of torch."""

from srr_onnx.errors import MissingDependencyError

try:
    import torch as _torch  # noqa: F401 - asked for here, once for the whole package
except ImportError:
    raise MissingDependencyError(
        "fine-tuning needs PyTorch, which is not installed: pip install 'srr-onnx[finetune]'"
    ) from None
