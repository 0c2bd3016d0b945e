"""SCORE: the settings of structural redundancy reduction (SRR).

Plain values, checked when they are made; `SrrOptions.auto()` and `SrrOptions.paper()` are the two presets.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

from srr_onnx.errors import SrrError

Gamma = Literal["auto", "paper"] | float
Coupling = Literal["every_layer", "joined"]
NodeRemoval = Literal["highest_degree", "smallest_l1", "random"]
FilterChoice = Literal["removed_nodes", "l1", "closest_pair"]

PAPER_GAMMA = 0.023


@dataclasses.dataclass(frozen=True)
class SrrOptions:
    """How the redundancy of a group is measured and which of its filters go.

    Attributes:
        gamma: Which distances make an edge. "auto": the quantile below. A number g: those with
            distance / sqrt(n) <= g, where n is the length of a filter. "paper": this rule with g = 0.023, of which no
            published value is known to us but which a public re-implementation says to lie in the paper's range.
        quantile: For gamma "auto": share of the distances between the filters of a layer that make an edge, in [0, 1].
        pooled: For gamma "auto": one threshold for the whole model, from the distances of all groups together, instead
            of one per layer.
        coupling: How the graph of a group is made whose units have filters in several layers. "every_layer": two units
            are neighbors if their filters are in every layer's own graph. "joined": if their filters, concatenated over
            the layers, are close; n is then the mean length.
        normalize: Rank groups by (R - 1) / (U - 1), U units at the start, instead of R, which grows with U.
        node_removal: Which node of a graph goes next: the one with the most neighbors left (of equals the unit with the
            smaller L1 norm, then the lower index), the one with the smallest L1 norm, or a random one.
        filter_choice: Which filters go: those of the removed nodes, those with the smallest L1 norm, or the one with
            the smaller L1 norm of the closest remaining pair, again and again.
        component_weight: Weight w1 of the number of components in R.
        covering_weight: Weight w2 of the covering number in R.

    Raises:
        SrrError: A value is out of range.

    Source:
        Wang et al., "Convolutional Neural Network Pruning with Structural Redundancy Reduction", CVPR 2021,
        arXiv:2104.03438: weights 0.35 and 0.65, raw R, choice by L1 norm. The paper leaves the removed node open.
        Deviates: quantile, normalization and choice by node, since the paper's fixed threshold gives graphs without
        any edge for short filters and complete graphs for long ones.
    """

    gamma: Gamma = "auto"
    quantile: float = 0.5
    pooled: bool = False
    coupling: Coupling = "every_layer"
    normalize: bool = True
    node_removal: NodeRemoval = "highest_degree"
    filter_choice: FilterChoice = "removed_nodes"
    component_weight: float = 0.35
    covering_weight: float = 0.65

    def __post_init__(self) -> None:
        if isinstance(self.gamma, str):
            _check_choice("gamma", self.gamma, ("auto", "paper", "or a number"))
        elif not (math.isfinite(self.gamma) and self.gamma >= 0):
            raise SrrError(f"gamma (={self.gamma}) must be a finite number of at least 0, 'auto' or 'paper'")
        if not 0 <= self.quantile <= 1:
            raise SrrError(f"quantile (={self.quantile}) must lie between 0 and 1")
        _check_choice("coupling", self.coupling, get_args(Coupling))
        _check_choice("node_removal", self.node_removal, get_args(NodeRemoval))
        _check_choice("filter_choice", self.filter_choice, get_args(FilterChoice))
        weights = (self.component_weight, self.covering_weight)
        if not (all(math.isfinite(weight) and weight >= 0 for weight in weights) and sum(weights) > 0):
            raise SrrError(f"component_weight and covering_weight (={weights}) must be at least 0, and not both 0")

    @classmethod
    def auto(cls) -> SrrOptions:
        """The calibrated form, which is the default."""
        return cls()

    @classmethod
    def paper(cls) -> SrrOptions:
        """The paper's form: fixed threshold, raw R, smallest L1 norm."""
        return cls(gamma="paper", normalize=False, node_removal="smallest_l1", filter_choice="l1")

    @classmethod
    def choose(
        cls, gamma: Gamma, node_removal: NodeRemoval | None = None, filter_choice: FilterChoice | None = None
    ) -> SrrOptions:
        """Make the settings of what a user chooses; the rest is that of the form which `gamma` stands for.

        Args:
            gamma: "auto", "paper", or a number.
            node_removal: Which node goes next; None leaves it to the form.
            filter_choice: Which filters go; None leaves it to the form.

        Returns:
            The settings.

        Raises:
            SrrError: A value is out of range.
        """
        form = cls.paper() if gamma == "paper" else cls.auto()
        return dataclasses.replace(
            form,
            gamma=gamma,
            node_removal=node_removal or form.node_removal,
            filter_choice=filter_choice or form.filter_choice,
        )


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SrrError(f"{name} (={value!r}) must be one of {', '.join(allowed)}")
