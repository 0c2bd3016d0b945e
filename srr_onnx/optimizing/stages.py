"""OPTIMIZE: the stages of a run: which there are, what each leaves in its folder, and how good that is.

A stage is finished when its `stage.json` is there, which is written last and whole; until then it is done again, or,
where it trains, goes on.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from srr_onnx.errors import RecipeError
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import write_atomically
from srr_onnx.validation.agreement import find_main
from srr_onnx.validation.estimates import estimate_share
from srr_onnx.validation.validate import Side, Validation

Kind = Literal["prune", "finetune"]
DONE = "stage.json"
_SCHEMA = "srr-onnx/optimize-stage/1"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        number: Its place, from 1.
        kind: What happens.
        step: Step of the pruning that it belongs to, from 1.
        folder: Where its files lie.
    """

    number: int
    kind: Kind
    step: int
    folder: Path

    @property
    def name(self) -> str:
        """What it is called: its folder's name."""
        return self.folder.name

    @property
    def model(self) -> Path:
        """The model that it makes."""
        return self.folder / "model.onnx"

    @property
    def plan(self) -> Path:
        """What went, where it prunes."""
        return self.folder / "plan.json"

    @property
    def run(self) -> Path:
        """Checkpoints and logs, where it trains."""
        return self.folder / "run"


@dataclasses.dataclass(frozen=True)
class StageResult:
    """What a stage has made.

    Attributes:
        name: The stage; "original" for the model at the beginning.
        sha256: Hash of the model's file.
        macs: Multiply-accumulates.
        params: Parameters.
        size_bytes: Size of the file.
        accuracy: Share of the test samples that are right, with its interval; None without labels.
        agreement: Share of them on which the original finds the same class; None where that is not known.
        samples: Test samples; 0 where there are none.
        seconds: How long it took, the last attempt where there were several.
        notes: What the user should know.
    """

    name: str
    sha256: str
    macs: int
    params: int
    size_bytes: int
    accuracy: dict[str, float] | None
    agreement: dict[str, float] | None
    samples: int
    seconds: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain form; docs/optimize.md describes it."""
        return {**dataclasses.asdict(self), "notes": list(self.notes)}


def list_stages(folder: Path, steps: int, *, trains: bool) -> Iterator[Stage]:
    """List the stages of a run.

    Args:
        folder: The run's folder.
        steps: Steps of the pruning.
        trains: Whether each is followed by training.

    Yields:
        The stages in order.
    """
    kinds: tuple[Kind, ...] = ("prune", "finetune") if trains else ("prune",)
    for step in range(1, steps + 1):
        for place, kind in enumerate(kinds, 1):
            number = (step - 1) * len(kinds) + place
            yield Stage(number, kind, step, folder / f"{number:02}-{kind}")


def find_result(stage: Stage, load: Callable[[Path], Model]) -> StageResult | None:
    """Find what a stage has made.

    Args:
        stage: The stage.
        load: Loads a model.

    Returns:
        The result; None where it is not finished.

    Raises:
        RecipeError: A file of it has been changed since.
    """
    try:
        found = json.loads((stage.folder / DONE).read_text(encoding="utf-8"))
        values = {field.name: found[field.name] for field in dataclasses.fields(StageResult)}
        result = StageResult(**{**values, "notes": tuple(found["notes"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{str(stage.folder / DONE)!r} is damaged: remove it, and the stage is done again") from error
    if not stage.model.exists() or load(stage.model).sha256 != result.sha256:
        raise RecipeError(
            f"{str(stage.model)!r} is not the file that the stage has made: remove {str(stage.folder)!r} and all "
            "stages after it, and they are done again"
        )
    return result


def carry_out(stage: Stage, make: Callable[[], tuple[str, ...]], compare: Callable[[Path], Validation]) -> StageResult:
    """Do a stage, judge what it has made, and mark it as finished.

    Args:
        stage: The stage.
        make: Does it: writes its files, and gives notes.
        compare: Compares the model in a file with the original.

    Returns:
        The result.
    """
    start = time.monotonic()
    stage.folder.mkdir(exist_ok=True)
    for part in stage.folder.glob(".*.part"):  # of a run that was killed while it wrote
        part.unlink()
    notes = make()
    seconds = time.monotonic() - start
    found = compare(stage.model)
    result = describe_side(stage.name, found, found.candidate, seconds, notes)
    with write_atomically(stage.folder / DONE) as file:
        file.write(json.dumps({"schema": _SCHEMA, **result.to_json()}, indent=1).encode())
    return result


def describe_side(
    name: str, found: Validation, side: Side, seconds: float = 0.0, notes: tuple[str, ...] = ()
) -> StageResult:
    """Tell what a model costs and how good it is.

    Args:
        name: What the row is called.
        found: The comparison with the original.
        side: The one of its two models that is told.
        seconds: How long it took to make.
        notes: What the user should know.

    Returns:
        The figures; nothing on made-up inputs, which tell nothing of quality.
    """
    main = None if found.is_made_up or side is found.reference else find_main(found.agreement)
    accuracy = side.accuracy
    return StageResult(
        name,
        side.model.sha256,
        side.cost.macs,
        side.cost.params,
        side.size_bytes,
        None if accuracy is None else estimate_share(accuracy.correct, accuracy.samples).to_json(),
        None if main is None or main.top1 is None else main.top1.to_json(),
        0 if found.is_made_up else found.samples,
        seconds,
        notes,
    )
