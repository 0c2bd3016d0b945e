"""What `prune` and `apply` say of their result: facts for machines, and the table made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from srr_onnx.analysis.labels import FreezeReason
from srr_onnx.cli.pace import describe_limits, warn_of_pace, warn_of_widths
from srr_onnx.cli.tables import note, show_line, show_table
from srr_onnx.graph.cost import CONVENTION
from srr_onnx.graph.model import Model
from srr_onnx.graph.save import count_bytes
from srr_onnx.planning.budget import NAMES, QUANTITIES, TOLERANCE
from srr_onnx.planning.plan import LOSSLESS, Plan
from srr_onnx.rewriting.exact.gains import ExactGains, Reason
from srr_onnx.wording import counted, percent, quantity, removed, shape

Facts = dict[str, Any]

# Groups that keep a smaller share of their units are what does not recover.
NARROW = 0.4
_KINDS = {
    "least-squares": "fitted by least squares on samples",
    "data-free": "fitted to what the normalizations say, without samples",
    "merge": "merged into similar filters",
}
_MOST_NAMED = 6


def collect_facts(
    command: str,
    original: Model,
    plan: Plan,
    output: Path | None,
    plan_path: Path | None,
    gains: ExactGains | None = None,
    gates: Sequence[Mapping[str, Any]] | None = None,
) -> Facts:
    """Put a result into its JSON form.

    Args:
        command: "prune" or "apply".
        original: The model that was pruned.
        plan: Its plan, with the proof if there was one.
        output: File written, None after a dry run.
        plan_path: Plan written.
        gains: What went without changing any output, after `prune --lossless`.
        gates: What the result had to reach.

    Returns:
        The facts; `docs/commands.md` describes them.
    """
    narrowest = min(plan.groups, key=lambda group: (len(group.keep), len(group.keep) / group.units), default=None)
    return {
        "schema": f"srr-onnx/{command}/1",
        "output": None if output is None else str(output),
        "plan": None if plan_path is None else str(plan_path),
        "inputs": {name: list(sizes) for name, sizes in plan.inputs.items()},
        "criterion": dict(plan.criterion),
        "budget": dict(plan.budget),
        "convention": CONVENTION,
        "cost": {"before": plan.before.to_json(), "after": plan.after.to_json()},
        "uncounted": list(plan.uncounted),
        "removed": {"macs": plan.macs_removed, "params": plan.params_removed},
        "file_bytes": {"before": original.size_bytes, "after": None if output is None else count_bytes(output)},
        "groups": {
            "pruned": len(plan.groups),
            "units_removed": sum(group.units - len(group.keep) for group in plan.groups),
            "inexact": sum(not group.exact for group in plan.groups),
            "narrowest": narrowest and {"id": narrowest.id, "units": narrowest.units, "kept": len(narrowest.keep)},
            "narrow": [
                {"id": group.id, "units": group.units, "kept": len(group.keep)}
                for group in plan.groups
                if len(group.keep) < NARROW * group.units
            ],
            "unproven": [e.get("filters") for e in plan.frozen if e.get("reason") == FreezeReason.UNPROVEN.value],
        },
        "lossless": None if gains is None else _describe_gains(plan, gains),
        "proof": dict(plan.proof) or None,
        "compensation": dict(plan.compensation) or None,
        "agreement": dict(plan.agreement) or None,
        "latency": dict(plan.latency) or None,
        "gates": [] if gates is None else list(gates),
    }


def _describe_gains(plan: Plan, gains: ExactGains) -> list[dict[str, Any]]:
    """Groups that lose units without changing any output, with the number of units by reason."""
    return [
        {
            "id": group.id,
            "units": group.units,
            "kept": len(group.keep),
            **{reason.value: count for reason, count in gains.counts[group.id].items()},
        }
        for group in plan.groups
    ]


def find_warnings(facts: Facts) -> Iterator[str]:
    """What the user should know of a result before relying on it."""
    if coarse := _describe_overshoot(facts):
        yield coarse
    yield from warn_of_widths(facts)
    yield from warn_of_pace(facts)
    if unproven := facts["groups"]["unproven"]:
        yield f"pruning failed the proof at {', '.join(unproven)}: please report this model"
    if narrow := facts["groups"]["narrow"]:
        names = ", ".join(f"{group['id']} ({group['kept']} of {group['units']})" for group in narrow[:_MOST_NAMED])
        more = f" and {len(narrow) - _MOST_NAMED} more" if len(narrow) > _MOST_NAMED else ""
        yield f"groups below {percent(NARROW)} of their width, which recover worst: {names}{more}"


def _describe_overshoot(facts: Facts) -> str:
    """Say that more went than was asked for, which happens where a single unit is worth more than the tolerance."""
    kind, amount = facts["budget"]["kind"], facts["budget"]["amount"]
    if kind not in QUANTITIES:
        return ""
    share = facts["removed"][QUANTITIES[kind]]
    if share <= amount + TOLERANCE:
        return ""
    others = [limit for limit in facts["budget"].get("limits", ()) if limit["kind"] != kind]
    if others:
        why = "another budget needed it"
    elif facts["budget"].get("alignment"):
        why = "the widths that the alignment allows lie far apart (--align off takes any)"
    else:
        why = "the groups that can shrink do so in large steps"
    return f"{share:.1%} of the {NAMES[kind]} went instead of {amount:.1%}: {why}"


def note_guess(model: Model) -> None:
    """Say on stderr which sizes were chosen for open axes, if any were."""
    chosen = ", ".join(f"{name} {shape(sizes)}" for name, sizes in model.inputs.items() if name in model.guessed)
    if chosen:
        note(f"note: the file leaves height and width open, taken as {chosen} (--input chooses others); they stay open")


def note_inlined(plan: Plan, plan_path: Path | None) -> None:
    """Say on stderr that a plan's names are not those of the file as it was given, if so."""
    if plan.is_inlined and plan_path is not None:
        note(
            f"note: the model's functions were inlined, so {plan_path} names its values as "
            "onnx.inliner.inline_local_functions does"
        )


def note_cost(facts: Facts) -> None:
    """Say on stderr where the figures do not tell all, or what has grown."""
    note_uncounted(facts["uncounted"])
    before, after = (facts["cost"][when]["params"] for when in ("before", "after"))
    if after > before:
        note(
            f"warning: the pruned model has more parameters than the original ({quantity(after)} instead of "
            f"{quantity(before)}): weights that the file computes from smaller ones are stored multiplied out"
        )


def note_uncounted(nodes: Sequence[str]) -> None:
    """Say on stderr which layers are missing in the MACs, if any are."""
    if nodes:
        more = f" and {len(nodes) - 5} more" if len(nodes) > 5 else ""
        note(
            f"warning: the MACs of {', '.join(nodes[:5])}{more} count as zero: their shapes are known only in a run, "
            "and onnxruntime does not run the model"
        )


def show_facts(facts: Facts) -> None:
    """Print the table."""
    before, after, size = facts["cost"]["before"], facts["cost"]["after"], facts["file_bytes"]
    rows = [
        ("MACs", quantity(before["macs"]), quantity(after["macs"]), removed(before["macs"], after["macs"])),
        (
            "parameters",
            quantity(before["params"]),
            quantity(after["params"]),
            removed(before["params"], after["params"]),
        ),
    ]
    if size["after"] is None:
        sizes, label = (before["bytes"], after["bytes"]), "weights"
    else:
        sizes, label = (size["before"], size["after"]), "file size"
    rows.append((label, quantity(sizes[0], "B"), quantity(sizes[1], "B"), removed(*sizes)))
    show_table(("", "before", "after", "change"), rows)
    show_line()
    if facts["lossless"]:
        columns = ("units", *(reason.value for reason in Reason), "kept")
        cells = [(row["id"], *(str(row[column]) for column in columns)) for row in facts["lossless"]]
        show_table(("group", *columns), cells)
        show_line()
    for label, text in describe_result(facts):
        show_line(f"{label:<10}{text}")


def describe_result(facts: Facts) -> list[tuple[str, str]]:
    """Lines on everything but the costs, with their labels."""
    lines = [("inputs", ", ".join(f"{name} {shape(sizes)}" for name, sizes in facts["inputs"].items()))]
    lines.append(("groups", _groups_text(facts)))
    lines.append(("proof", proof_text(facts)))
    lines += describe_compensation(facts)
    lines += describe_limits(facts)
    if facts["output"] is not None:
        lines.append(("written", ", ".join(name for name in (facts["output"], facts["plan"]) if name)))
    lines.append(("counted", facts["convention"]))
    return lines


def describe_compensation(facts: Facts) -> list[tuple[str, str]]:
    """Lines on what was done to the weights after the proof, and how the result compares with the original."""
    lines = []
    done, compared = facts["compensation"], facts["agreement"]
    is_made_up = bool((compared or {}).get("made_up"))
    if done and done["kind"] != "none":
        samples = " (made-up pictures)" if is_made_up and done["layer_error"] else ""
        text = f"{_KINDS[done['kind']]}{samples}, {counted(done['layers'], 'layer')} changed after the proof"
        if done["layer_error"]:
            text += f"; median error of their outputs {done['layer_error']['before']:.1%} -> "
            text += f"{done['layer_error']['after']:.1%} of the variance"
        if done["created_biases"]:
            text += f"; {counted(done['created_biases'], 'bias', 'biases')} created (--keep-structure forbids it)"
        lines.append(("weights", text))
    if done and done["recalibrated_norms"]:
        norms = counted(done["recalibrated_norms"], "normalization")
        lines.append(("norms", f"statistics of {norms} set anew from the samples"))
    for output in (compared or {}).get("outputs", ()):
        parts = []
        if output["top1"]:
            parts.append(f"top-1 {_interval(output['top1'], percent)}")
        parts.append(f"cosine {_interval(output['cosine'], '{:.4f}'.format)}")
        if output["kl"]:
            parts.append(f"KL {_interval(output['kl'], '{:.3g}'.format)}")
        where = "made-up pictures, which tells nothing of real ones" if is_made_up else "held-out samples"
        lines.append(("agrees", f"{', '.join(parts)} on {output['samples']:,} {where} ({output['output']})"))
    if accuracy := (compared or {}).get("accuracy"):
        text = f"{percent(accuracy['before'])} -> {percent(accuracy['after'])} on "
        text += counted(accuracy["samples"], "held-out sample")
        lines.append(("accuracy", text))
    return lines


def _interval(estimate: dict[str, float], write: Callable[[float], str]) -> str:
    return f"{write(estimate['mean'])} ({write(estimate['low'])} to {write(estimate['high'])})"


def _groups_text(facts: Facts) -> str:
    groups, budget = facts["groups"], facts["budget"]
    narrowest = groups["narrowest"]
    if narrowest is None:
        return (
            "none pruned"
            if facts["lossless"] is None
            else "nothing to remove: no unit is dead, constant or a duplicate"
        )
    text = (
        f"{groups['pruned']} pruned, {counted(groups['units_removed'], 'unit')} gone; "
        f"the narrowest, {narrowest['id']}, keeps {narrowest['kept']} of {narrowest['units']}"
    )
    used, asked = budget.get("cap_used", 0), budget.get("max_group_ratio", 0)
    if budget.get("kind") != "ratio" and used > asked:
        text += f"; the budget needed up to {percent(used)} of a group, more than the {percent(asked)} allowed at first"
    if groups["unproven"]:
        text += f"; {len(groups['unproven'])} kept whole, since pruning them failed the proof"
    return text


def proof_text(facts: Facts) -> str:
    """One line on what was proven; it does not whisper where nothing was."""
    proof = facts["proof"]
    if proof is None:
        return (
            "NONE: dry run, nothing written"
            if facts["output"] is None
            else "NONE: --no-verify, not compared with the original"
        )
    if proof.get("kind") == LOSSLESS:
        return (
            f"lossless: same outputs as the original in onnxruntime: relative error {proof['relative_error']:.1e} "
            f"(allowed {proof['tolerance']:.0e})" + _conditions(proof)
        )
    if not proof["is_exact"]:
        return (
            f"SHAPES ONLY: {counted(facts['groups']['inexact'], 'inexact group')} pruned (--allow-inexact), so the "
            "outputs cannot equal the masked original's; the model runs"
        )
    return (
        f"pruned = masked original in onnxruntime: relative error {proof['relative_error']:.1e} "
        f"(allowed {proof['tolerance']:.0e}), {counted(proof['masks'], 'mask')}" + _conditions(proof)
    )


def _conditions(proof: Facts) -> str:
    return "".join(f"; once more at {name} {shape(sizes)}" for name, sizes in proof["elsewhere"].items()) + (
        "" if proof["is_rounded"] else "; the rounding of quantized activations was left out of both"
    )
