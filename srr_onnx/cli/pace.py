"""What `prune` says of budgets, widths and milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from srr_onnx.cli.target_options import describe_target
from srr_onnx.planning.budget import NAMES, Limit
from srr_onnx.targets.target import Target
from srr_onnx.wording import counted, duration, percent

_MOST_NAMED = 5
# A group that lost so much more or less than --ratio says is worth a word.
_NOTICED = 0.05


def describe_limits(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lines on several budgets, on the widths that were chosen from, and on what was timed; with their labels."""
    budget, latency = facts["budget"], facts["latency"]
    lines = []
    limits = budget.get("limits") or ()
    if len(limits) > 1:
        asked = [limit for limit in limits if limit["amount"]]
        parts = [
            f"{NAMES[limit['kind']]} {percent(limit['reached'])} of at least {percent(limit['amount'])}"
            for limit in asked
        ]
        text = f"removed: {', '.join(parts)}"
        text += f"; {NAMES[budget['kind']]} is the one that binds" if len(asked) > 1 else ""
        for limit in limits:
            if not limit["amount"]:  # only what may be left can be met by the model as it is
                most = Limit(limit["kind"], 0.0, limit["most"])
                text += f"; the {NAMES[most.kind]} was within {most.write(limit['most'])} already"
        lines.append(("budgets", text))
    if alignment := budget.get("alignment"):
        steps = alignment["steps"]
        if len(set(steps.values())) == 1:
            text = f"multiples of {counted(next(iter(steps.values())), 'channel')}"
        else:
            text = "multiples of " + ", ".join(f"{step} ({kind})" for kind, step in steps.items()) + " channels"
        text += ", as measured on this machine" if alignment["source"] == "auto" else ""
        lines.append(("widths", f"{text}; finer ones in groups narrower than two of them"))
    if latency:
        lines.append(("latency", _describe_latency(facts, latency)))
    return lines


def _describe_latency(facts: Mapping[str, Any], latency: Mapping[str, Any]) -> str:
    before, after = latency["before_ms"], latency["after_ms"]
    text = f"{before:.3g} ms -> {after:.3g} ms"
    macs = facts["cost"]["before"]["macs"], facts["cost"]["after"]["macs"]
    if macs[1] and after:
        text += f", {before / after:.2f} times as fast for {macs[0] / macs[1]:.2f} times fewer MACs"
    text += f" ({describe_target(Target(**latency['target']))})"
    if "goal_ms" in latency:
        plans = len(latency["rounds"])
        goal = duration(latency["goal_ms"] / 1e3)
        text += f"; goal {goal}, {counted(plans, 'plan')} measured" if plans else "; its goal was met already"
    if latency.get("table_error") is not None:
        last = latency["rounds"][-1]
        text += f"; the table said {last['predicted_ms']:.3g} ms, the run {last['measured_ms']:.3g} ms"
    return text


def warn_of_widths(facts: Mapping[str, Any]) -> Iterator[str]:
    """Say that a group lost another share than --ratio asked for, as the widths that are allowed lie far apart."""
    budget, narrowest = facts["budget"], facts["groups"]["narrowest"]
    if budget["kind"] != "ratio" or not budget.get("alignment") or narrowest is None:
        return
    lost = 1 - narrowest["kept"] / narrowest["units"]
    if abs(lost - budget["amount"]) > _NOTICED:
        yield (
            f"{narrowest['id']} lost {percent(lost)} of its units instead of {percent(budget['amount'])}, others "
            "may too: the alignment allows no nearer width (--align off takes any)"
        )


def warn_of_pace(facts: Mapping[str, Any]) -> Iterator[str]:
    """Say that a result is not faster, and where the time went."""
    latency = facts["latency"]
    if not latency or latency["is_faster"]:
        return
    named = [
        f"{entry['node']} ({entry['before_ms']:.3g} -> {entry['after_ms']:.3g} ms)"
        for entry in latency["slower"][:_MOST_NAMED]
    ]
    more = len(latency["slower"]) - len(named)
    where = f"; slower: {', '.join(named)}" + (f" and {more} more" if more > 0 else "") if named else ""
    hint = "" if facts["budget"].get("alignment") else "; --align auto takes widths that this machine computes fast"
    yield (
        f"the result is not faster: {latency['before_ms']:.3g} ms before, {latency['after_ms']:.3g} ms after"
        f"{where}{hint}"
    )
