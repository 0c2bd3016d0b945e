"""PLAN: widths that a runtime likes: of which number of channels a group keeps a multiple.

Vector kernels compute channels in blocks: a width that does not fill its last block costs as much as one that does, or
more. The steps come from the user, or from a measurement of the machine; here they are numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from srr_onnx.analysis.groups import Groups, Member, Role
from srr_onnx.errors import PlanError
from srr_onnx.graph.model import Model, Node

KINDS = ("pointwise", "spatial", "depthwise", "dense")
MOST = 256


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Steps of widths.

    Attributes:
        steps: Channels of which a multiple stays, by kind of operator; 1 where any width does.
        source: "auto" where they were measured, "given" where the user said so.
    """

    steps: Mapping[str, int]
    source: str

    @classmethod
    def given(cls, step: int) -> Alignment:
        """The same step for every kind."""
        return cls(dict.fromkeys(KINDS, step), "given")

    def coarsen(self, factor: int) -> Alignment:
        """Steps that are so many times as wide; no matter where any width does."""
        return dataclasses.replace(self, steps={k: s if s == 1 else s * factor for k, s in self.steps.items()})

    def to_json(self) -> dict[str, object]:
        """Plain form, as in plan files."""
        return {"source": self.source, "steps": dict(self.steps)}


def parse_align(value: str | int) -> str | int:
    """Read what the user says of alignment.

    Args:
        value: "auto", "off", or a number of channels.

    Returns:
        "auto", "off", or the number, from 1 to 256.

    Raises:
        PlanError: It is nothing of the kind.
    """
    text = str(value).strip()
    if text in ("auto", "off"):
        return text
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MOST:
        return int(text)
    raise PlanError(f"{text!r} is no alignment: give auto, off, or a number of channels from 1 to {MOST}, such as 8")


def kind_of(model: Model, node: Node) -> str | None:
    """Find how a runtime computes a node.

    Args:
        model: Loaded model.
        node: Any node.

    Returns:
        One of `KINDS`; None where widths are no matter of speed.
    """
    if node.domain or node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    weight = model.sizes.get(node.input(1))
    if node.op_type != "Conv" or weight is None or len(weight) < 3:
        return "dense"
    if node.attributes.get("group", 1) > 1 and weight[1] == 1:
        return "depthwise"
    return "pointwise" if math.prod(weight[2:]) == 1 else "spatial"


def find_steps(model: Model, groups: Groups, alignment: Alignment) -> list[int]:
    """Find of how many units every group keeps a multiple.

    Along an axis that several groups share, every group's own part is aligned, and so the sum is.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
        alignment: Steps in channels.

    Returns:
        Units per step, by group number. A group narrower than two steps has a finer one.
    """
    nodes = {node.index: node for node in model.nodes}
    steps = []
    for group in groups:
        step = math.lcm(*(_step(model, nodes[member.use.node], member, alignment) for member in group.members))
        while step > 1 and 2 * step > group.size:
            step //= 2
        steps.append(step)
    return steps


def _step(model: Model, node: Node, member: Member, alignment: Alignment) -> int:
    """Units of which a multiple stays so that one operator likes the width."""
    kind = kind_of(model, node)
    if kind is None or member.role not in (Role.FILTER, Role.INPUT) or (kind, member.role) == ("dense", Role.INPUT):
        return 1  # what a product sums over is in no block
    channels = member.positions.shape[1]
    conv_groups = int(node.attributes.get("group", 1)) if kind != "depthwise" else 1
    if conv_groups > 1 and channels % conv_groups == 0:
        channels //= conv_groups  # so many in every group, and every group is computed by itself
    step = alignment.steps.get(kind, 1)
    return step // math.gcd(step, channels)
