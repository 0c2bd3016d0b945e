"""REWRITE: what happens when a proof fails.

A wrong rule cannot make a wrong file, because the proof catches it; nor should it cost the user the whole model. The
group that fails is found by halving, kept as it is, and the rest is planned and proven again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from srr_onnx.analysis.groups import Groups
from srr_onnx.errors import ModelError, ProofError, SrrError
from srr_onnx.graph.model import Model
from srr_onnx.planning.make import Decision
from srr_onnx.planning.plan import Kept, Plan
from srr_onnx.rewriting.apply import kept_positions, prune_units
from srr_onnx.rewriting.replay import prove, rewrite
from srr_onnx.rewriting.verify import verify_pruned

Suspect = TypeVar("Suspect")
# What a rule that is wrong can end in.
FAILURES = (ProofError, ModelError, ArithmeticError, AssertionError, LookupError, TypeError, ValueError)


def rewrite_proven(
    model: Model,
    groups: Groups,
    decide: Callable[[Sequence[str]], Decision],
    on_stage: Callable[[str], None] = lambda stage: None,
) -> tuple[Model, Plan]:
    """Plan, rewrite and prove, leaving out groups whose pruning cannot be proven.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
        decide: Makes the plan, given the ids of groups that have failed so far.
        on_stage: Told "plan", "rewrite" and "verify" as they begin.

    Returns:
        The pruned model and its plan with the proof; groups that failed are among the frozen, as "unproven".

    Raises:
        ProofError: A proof failed and no group can be named as the cause.
        SrrError: What `decide` raises when nothing provable is left.
    """
    unproven: list[str] = []
    while True:
        on_stage("plan")
        decision = decide(unproven)
        try:
            on_stage("rewrite")
            pruned, plan = rewrite(model, groups, decision)
            on_stage("verify")
            return pruned, prove(model, pruned, plan)
        except FAILURES as error:
            culprits = find_culprits(model, groups, decision.is_kept)
            if not culprits:
                if isinstance(error, SrrError):
                    raise
                raise ProofError(f"the model cannot be rewritten ({error}): nothing was written") from error
            unproven += culprits


def find_culprits(model: Model, groups: Groups, is_kept: Kept) -> list[str]:
    """Find a group, or a smallest set of groups, whose pruning alone fails the proof.

    Args:
        model: Loaded model.
        groups: Result of `find_groups(model)`.
        is_kept: The units that were to stay when the proof of all groups together failed.

    Returns:
        Ids of the groups; empty where no part fails, or where the model does not even run unpruned.
    """
    suspects = [group.id for group in groups if not is_kept[group.units].all()]
    return find_smallest(suspects, lambda chosen: _fails(model, groups, is_kept, chosen))


def find_smallest(suspects: Sequence[Suspect], fails: Callable[[Sequence[Suspect]], bool]) -> list[Suspect]:
    """Find one suspect, or a smallest set of suspects, that fails alone, by halving.

    Args:
        suspects: All of them.
        fails: Whether some of them fail.

    Returns:
        The culprits; empty where all together do not fail, or where none at all fails too.
    """
    found = list(suspects)
    if not fails(found) or fails([]):
        return []
    while len(found) > 1:
        middle = len(found) // 2
        half = next((part for part in (found[:middle], found[middle:]) if fails(part)), None)
        if half is None:
            break  # only both halves together fail
        found = half
    return found


def _fails(model: Model, groups: Groups, is_kept: Kept, chosen: Sequence[str]) -> bool:
    """Whether pruning only the chosen groups fails."""
    part = np.ones_like(is_kept)
    is_exact = True
    for group in groups:
        if group.id in chosen:
            part[group.units] = is_kept[group.units]
            is_exact = is_exact and group.is_exact
    try:
        verify_pruned(model, prune_units(model, groups, part), kept_positions(groups, part), is_exact=is_exact)
    except (SrrError, ArithmeticError, AssertionError, LookupError, TypeError, ValueError):
        return True
    return False
