"""FINE-TUNE: how the learning rate goes, and what is averaged on the way."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Tell which share of the highest learning rate a step takes.

    Args:
        step: Steps that are done, from 0.
        steps: Steps in all.
        warmup: Share of them in which the rate rises.

    Returns:
        A number in (0, 1]: a straight line up, then half a cosine down to next to nothing.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Average:
    """Moving average of everything that a module learns and measures.

    The decay grows to its full value, so that the first steps do not weigh for long.

    Args:
        module: What is averaged.
        decay: Weight of what has been, in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay, self._steps = decay, 0
        self._values = {name: value.detach().clone() for name, value in _floats(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the module's present state in."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for name, value in _floats(module).items():
            self._values[name] = self._values[name].to(value.device).lerp_(value.detach(), 1 - decay)

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Give a module the averaged state while the block runs."""
        before = {name: value.detach().clone() for name, value in _floats(module).items()}
        _write(module, self._values)
        try:
            yield
        finally:
            _write(module, before)

    def state_dict(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        return {"steps": self._steps, "values": self._values}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on from a checkpoint."""
        steps, values = state["steps"], state["values"]
        assert isinstance(steps, int) and isinstance(values, dict)
        self._steps, self._values = steps, dict(values)


def _floats(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if value.is_floating_point()}


@torch.no_grad()
def _write(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, value in _floats(module).items():
        value.copy_(values[name])
