"""Prune exported CNNs in ONNX form by structural redundancy, and prove the result.

    >>> import srr_onnx
    >>> result = srr_onnx.prune("model.onnx", "model.pruned.onnx", flops=0.44)  # doctest: +SKIP

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "prune": "srr_onnx.pipeline",
    "prune_lossless": "srr_onnx.lossless",
    "Pruned": "srr_onnx.validation.result",
    "open_data": "srr_onnx.data.read",
    "load_model": "srr_onnx.graph.load",
    "Model": "srr_onnx.graph.model",
    "count_cost": "srr_onnx.graph.cost",
    "Cost": "srr_onnx.graph.cost",
    "find_groups": "srr_onnx.analysis.find",
    "Groups": "srr_onnx.analysis.groups",
    "PruningGroup": "srr_onnx.analysis.groups",
    "Role": "srr_onnx.analysis.groups",
    "score_groups": "srr_onnx.scoring.score",
    "Scores": "srr_onnx.scoring.score",
    "criterion": "srr_onnx.scoring.criterion",
    "ScoreOptions": "srr_onnx.scoring.criterion",
    "SrrOptions": "srr_onnx.scoring.options",
    "make_plan": "srr_onnx.planning.make",
    "Budget": "srr_onnx.planning.budget",
    "Plan": "srr_onnx.planning.plan",
    "load_plan": "srr_onnx.planning.plan",
    "apply_plan": "srr_onnx.rewriting.replay",
    "prove": "srr_onnx.rewriting.replay",
    "save_model": "srr_onnx.graph.save",
    "fine_tune": "srr_onnx.finetuning.finetune",
    "FineTuned": "srr_onnx.finetuning.result",
    "TrainingOptions": "srr_onnx.finetuning.options",
    "optimize": "srr_onnx.optimizing.run",
    "Optimized": "srr_onnx.optimizing.run",
    "Recipe": "srr_onnx.optimizing.recipe",
    "load_recipe": "srr_onnx.optimizing.recipe",
    "evaluate": "srr_onnx.validation.evaluate",
    "Evaluation": "srr_onnx.validation.evaluate",
    "validate": "srr_onnx.validation.validate",
    "Validation": "srr_onnx.validation.validate",
    "RunOptions": "srr_onnx.validation.measure",
    "profile": "srr_onnx.validation.profile",
    "Profile": "srr_onnx.validation.profiled",
    "Target": "srr_onnx.targets.target",
    "SrrError": "srr_onnx.errors",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from srr_onnx.analysis.find import find_groups as find_groups
    from srr_onnx.analysis.groups import Groups as Groups
    from srr_onnx.analysis.groups import PruningGroup as PruningGroup
    from srr_onnx.analysis.groups import Role as Role
    from srr_onnx.data.read import open_data as open_data
    from srr_onnx.errors import SrrError as SrrError
    from srr_onnx.finetuning.finetune import fine_tune as fine_tune
    from srr_onnx.finetuning.options import TrainingOptions as TrainingOptions
    from srr_onnx.finetuning.result import FineTuned as FineTuned
    from srr_onnx.graph.cost import Cost as Cost
    from srr_onnx.graph.cost import count_cost as count_cost
    from srr_onnx.graph.load import load_model as load_model
    from srr_onnx.graph.model import Model as Model
    from srr_onnx.graph.save import save_model as save_model
    from srr_onnx.lossless import prune_lossless as prune_lossless
    from srr_onnx.optimizing.recipe import Recipe as Recipe
    from srr_onnx.optimizing.recipe import load_recipe as load_recipe
    from srr_onnx.optimizing.run import Optimized as Optimized
    from srr_onnx.optimizing.run import optimize as optimize
    from srr_onnx.pipeline import prune as prune
    from srr_onnx.planning.budget import Budget as Budget
    from srr_onnx.planning.make import make_plan as make_plan
    from srr_onnx.planning.plan import Plan as Plan
    from srr_onnx.planning.plan import load_plan as load_plan
    from srr_onnx.rewriting.replay import apply_plan as apply_plan
    from srr_onnx.rewriting.replay import prove as prove
    from srr_onnx.scoring.criterion import ScoreOptions as ScoreOptions
    from srr_onnx.scoring.criterion import criterion as criterion
    from srr_onnx.scoring.options import SrrOptions as SrrOptions
    from srr_onnx.scoring.score import Scores as Scores
    from srr_onnx.scoring.score import score_groups as score_groups
    from srr_onnx.targets.target import Target as Target
    from srr_onnx.validation.evaluate import Evaluation as Evaluation
    from srr_onnx.validation.evaluate import evaluate as evaluate
    from srr_onnx.validation.measure import RunOptions as RunOptions
    from srr_onnx.validation.profile import profile as profile
    from srr_onnx.validation.profiled import Profile as Profile
    from srr_onnx.validation.result import Pruned as Pruned
    from srr_onnx.validation.validate import Validation as Validation
    from srr_onnx.validation.validate import validate as validate


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'srr_onnx' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
