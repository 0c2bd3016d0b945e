"""REWRITE: put what the removed channels did into the weights that stay, by the best means at hand."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any, Literal, get_args

from srr_onnx.analysis.groups import Groups
from srr_onnx.calibration.observe import Observation, Samples
from srr_onnx.errors import DataError, UnknownNameError, UnsupportedError
from srr_onnx.graph.model import Model
from srr_onnx.rewriting import data_free, least_squares, merging
from srr_onnx.rewriting.recalibration import recalibrate
from srr_onnx.rewriting.transfer import Kept, apply_transfers

Kind = Literal["auto", "none", "merge", "data-free", "least-squares"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# With fewer samples least squares fit to what these happen to show: on the bundled ResNet-20, 44 % of whose FLOPs
# went, 8 images leave 35 % accuracy and 42 % from normalizations, 16 images 60 % and 53 %.
ENOUGH_SAMPLES = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Compensated:
    """The result.

    Attributes:
        model: The model; the pruned one itself where nothing was done.
        kind: What was done: one of the kinds but "auto".
        layers: Nodes whose weights were fitted.
        created: Number of biases that the file did not have.
        error: Median over the fitted layers of the error of their outputs on the samples, relative to the variance of
            these, before and after; None without samples. A layer whose outputs hardly vary has a huge relative error,
            which would be all that a mean shows.
        recalibrated: Number of normalizations whose statistics were set anew.
        tried: Squared error of the model's outputs on made-up inputs, relative to their variance, without and with what
            was done; None where that was not tried, or the outputs are not finite.
        given_up: What was done and then given up, since it brought the outputs no closer to the original's.
        undetermined: The fitted layers that have more weights than the samples determine.
    """

    model: Model
    kind: Kind
    layers: tuple[str, ...] = ()
    created: int = 0
    error: tuple[float, float] | None = None
    recalibrated: int = 0
    tried: tuple[float, float] | None = None
    given_up: Kind = "none"
    undetermined: tuple[least_squares.Fit, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain form, as in plan files."""
        return {
            "kind": self.kind,
            "layers": len(self.layers),
            "created_biases": self.created,
            "layer_error": _name_pair(self.error),
            "recalibrated_norms": self.recalibrated,
            "made_up_error": _name_pair(self.tried),
            "given_up": self.given_up,
        }


def _name_pair(pair: tuple[float, float] | None) -> dict[str, float] | None:
    return None if pair is None else dict(zip(("before", "after"), pair, strict=True))


def check_kind(kind: str) -> None:
    """Check that there is such a way to compensate.

    Raises:
        UnknownNameError: There is none; carries near matches.
    """
    if kind not in KINDS:
        raise UnknownNameError("way to compensate", str(kind), KINDS)


def compensate_pruned(
    model: Model,
    pruned: Model,
    groups: Groups,
    kept: Kept,
    kind: Kind = "auto",
    *,
    observation: Observation | None = None,
    keep_structure: bool = False,
    seed: int = 0,
    on_layer: Callable[[int, int], None] = lambda done, steps: None,
) -> Compensated:
    """Compensate a pruned model.

    Args:
        model: The original.
        pruned: The pruned model, as it was proven; not changed.
        groups: Result of `find_groups(model)`.
        kept: Positions that stay, by `(value, axis)`.
        kind: "least-squares" on samples; "data-free" from normalizations; "merge" into similar filters; "none"; "auto":
            least squares where there are samples (at least `ENOUGH_SAMPLES` of them, if the file has normalizations),
            else from normalizations where the file has them and by merging elsewhere.
        observation: What the original's layers gave on samples.
        keep_structure: Whether no bias may be created.
        seed: For draws.
        on_layer: Told the layers done and all layers.

    Returns:
        The compensated model.

    Raises:
        DataError: Least squares were asked for without samples.
        UnsupportedError: The means that was asked for finds nothing to work on.
        ModelError: onnxruntime cannot run a part of the model.
    """
    check_kind(kind)
    if kind == "none":
        return Compensated(pruned, "none")
    has_few = observation is None or observation.samples.count < ENOUGH_SAMPLES
    is_stated = kind == "data-free" or (kind == "auto" and has_few)
    transfers = data_free.find_transfers(model, kept, seed) if is_stated else {}
    if kind == "least-squares" or (kind == "auto" and observation is not None and not transfers):
        if observation is None:
            raise DataError("--compensate least-squares needs samples: give pictures or arrays with --data")
        found = least_squares.compensate(pruned, kept, observation, keep_structure=keep_structure, on_layer=on_layer)
        names = tuple(fit.layer for fit in found.fits)
        if not names:
            return Compensated(pruned, "none")
        before, after = (statistics.median(getattr(fit, when) for fit in found.fits) for when in ("before", "after"))
        short = tuple(fit for fit in found.fits if fit.needed > observation.samples.count)
        return Compensated(found.model, "least-squares", names, found.created, (before, after), undetermined=short)
    done: Kind = "data-free" if transfers else "merge"
    if kind == "data-free" and not transfers:
        raise UnsupportedError(
            "no layer that lost inputs reads what follows from a BatchNormalization (they were merged into the "
            "convolutions when the file was made): give --compensate merge, or pictures with --data"
        )
    if kind != "data-free":
        transfers = {**merging.find_merges(model, groups, kept), **transfers}
    changed, nodes, created = apply_transfers(model, pruned, kept, transfers, keep_structure=keep_structure)
    return Compensated(changed, done if nodes else "none", tuple(nodes), created)


def recalibrate_norms(
    found: Compensated,
    samples: Samples | None,
    on_layer: Callable[[int, int], None] = lambda done, steps: None,
) -> Compensated:
    """Set the statistics of normalizations anew, after whatever else was done.

    Args:
        found: What was done so far.
        samples: Inputs of the model's own domain; None where there are none.
        on_layer: Told the normalizations done and all of them.

    Returns:
        The same with new statistics.

    Raises:
        DataError: There are no samples.
        UnsupportedError: The file has no normalization whose statistics can be set.
        ModelError: onnxruntime cannot run a part of the model.
    """
    if samples is None:
        raise DataError("--recalibrate-norms needs samples: give pictures or arrays of the model's domain with --data")
    model, count = recalibrate(found.model, samples, on_layer)
    if not count:
        raise UnsupportedError(
            "there is no BatchNormalization with statistics of its own to recalibrate (they were merged into the "
            "convolutions when the file was made): leave out --recalibrate-norms"
        )
    return dataclasses.replace(found, model=model, recalibrated=count)
