"""VALIDATE: what the user should know of samples and weights after pruning."""

from __future__ import annotations

from srr_onnx.calibration.prepare import Calibration
from srr_onnx.rewriting.compensate import ENOUGH_SAMPLES, Compensated, Kind
from srr_onnx.validation.judge import Judgement


def collect_notes(
    calibration: Calibration | None, judgement: Judgement | None, found: Compensated, asked: Kind
) -> tuple[str, ...]:
    """Put the notes on a result together.

    Args:
        calibration: The samples, if there were any.
        judgement: What the held-out ones say.
        found: What was done to the weights.
        asked: What was asked for.

    Returns:
        Lines of text.
    """
    notes = [] if calibration is None else list(calibration.describe())
    if found.undetermined:
        worst = max(found.undetermined, key=lambda fit: fit.needed)
        notes.append(
            f"{len(found.undetermined)} of {len(found.layers)} fitted layers have more weights than the samples "
            f"determine, and keep part of their old ones ({worst.layer!r} reads {worst.columns:,} numbers): "
            f"{worst.needed:,} samples would do"
        )
    if judgement is not None and judgement.note:
        notes.append(judgement.note)
    has_few = calibration is not None and asked == "auto" and "data-free" in (found.kind, found.given_up)
    if has_few and found.kind == "data-free":
        notes.append(
            f"fewer than {ENOUGH_SAMPLES} samples to calibrate with make worse weights than none: these follow from "
            "the normalizations, --compensate least-squares fits them all the same"
        )
    if found.given_up != "none":
        advice = "give pictures with --data"
        if calibration is not None:
            advice = "--compensate least-squares fits to the samples" + (
                f", of which there are fewer than {ENOUGH_SAMPLES}" if has_few else ""
            )
        notes.append(
            f"compensation by {found.given_up} was left out: made-up inputs do not show that it brings the outputs "
            f"closer to the original's; {advice}"
        )
    elif asked not in ("auto", "none") and found.kind == "none":
        notes.append(f"--compensate {asked} found no weight that can be changed, of a layer that lost inputs")
    return tuple(notes)
