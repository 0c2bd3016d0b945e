"""The coverage table: bars, rows, their CSV file and their Markdown form."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# Most MACs that may be left at a ratio of 0.5: Torch-Pruning's figure plus 0.01; it crashes on shufflenet.
BARS = {
    "resnet18": 0.28,
    "resnet50": 0.27,
    "resnext50_32x4d": 0.28,
    "mobilenet_v2": 0.30,
    "mnasnet0_5": 0.33,
    "mobilenet_v3_small": 0.34,
    "efficientnet_b0": 0.30,
    "regnet_y_400mf": 0.28,
    "densenet121": 0.28,
    "squeezenet1_1": 0.34,
    "googlenet": 0.28,
    "inception_v3": 0.26,
    "vgg11_bn": 0.26,
    "alexnet": 0.29,
    "convnext_tiny": 0.27,
    "shufflenet_v2_x0_5": 0.45,
}
TOLERANCE = 1e-4  # largest relative difference between pruned and masked that counts as equal
LEAST_MOVED = 1e-3  # masks that move the outputs less than this would prove little
# Small nets first; the last ones have files of hundreds of megabytes.
NETS = (
    *("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "mobilenet_v3_small"),
    *("efficientnet_b0", "regnet_y_400mf", "googlenet", "densenet121", "resnet50", "resnext50_32x4d"),
    *("inception_v3", "convnext_tiny", "fcn_resnet50", "efficientnet_lite0", "opennsfw"),
    *("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet", "alexnet", "vgg11_bn", "wide_resnet50_2", "vgg16_bn"),
)
FORMS = (
    *("ts_folded", "ts_kept", "dyn_folded", "dyn_kept", "ts_shared", "dyn_shared", "ts_folded_shared"),
    *("ts_dynbatch", "ts", "dyn"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured on one file.

    Attributes:
        net: Name of the net.
        form: How it was exported; empty for a net of which there is one file.
        groups: Pruning groups.
        units: Their units.
        inexact_groups: Groups whose pruning cannot equal masking.
        inexact_units: Their units.
        frozen: Units that stay, with the reasons.
        macs: Multiply-accumulates of the original.
        macs_left: Share of them that is left at a ratio of 0.5.
        params_left: Share of the parameters that is left.
        error: Relative difference from the masked original at a ratio of 0.5; NaN where inexact groups went.
        keep_sets: Random keep-sets tried.
        worst_error: Largest relative difference over them.
        least_moved: Smallest relative distance that the masks moved the outputs.
        fault: What the checker has against a pruned file; empty where it accepts all.
        seconds: Seconds that the pruning took, with its own proof.
        problem: What went wrong; empty where nothing did.
        commit: Version of the code.
    """

    net: str
    form: str
    groups: int = 0
    units: int = 0
    inexact_groups: int = 0
    inexact_units: int = 0
    frozen: str = ""
    macs: int = 0
    macs_left: float = math.nan
    params_left: float = math.nan
    error: float = math.nan
    keep_sets: int = 0
    worst_error: float = math.nan
    least_moved: float = math.nan
    fault: str = ""
    seconds: float = math.nan
    problem: str = ""
    commit: str = ""

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return f"{self.net}.{self.form}" if self.form else self.net

    @property
    def findings(self) -> list[str]:
        """What falls short of the bars."""
        found = [self.problem] if self.problem else []
        if self.groups and self.macs_left > BARS.get(self.net, 1):
            found.append(f"{self.macs_left:.4f} of the MACs left, the bar is {BARS[self.net]}")
        for what, error in (("ratio 0.5", self.error), ("random keep-sets", self.worst_error)):
            if error > TOLERANCE:
                found.append(f"differs from the masked original by {error:.1e} ({what})")
        if self.least_moved < LEAST_MOVED:
            found.append(f"the masks move the outputs by {self.least_moved:.1e} only")
        if self.fault:
            found.append(f"the checker refuses a pruned file: {self.fault}")
        return found


def read_rows(path: Path) -> dict[str, Row]:
    """Read rows by file name; none where there is no such file."""
    if not path.exists():
        return {}
    rows = {}
    kinds = {field.name: field.type for field in dataclasses.fields(Row)}
    convert = {"str": str, "int": int, "float": float, "bool": lambda text: text == "True"}
    with path.open(newline="", encoding="utf-8") as file:
        for entry in csv.DictReader(file):
            row = Row(**{name: convert[str(kinds[name])](text) for name, text in entry.items() if name in kinds})
            rows[row.name] = row
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV, in the order of `NETS` and `FORMS`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in dataclasses.fields(Row)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in sort_rows(rows):
            entry = dataclasses.asdict(row)
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in entry.items()})


def sort_rows(rows: Iterable[Row]) -> list[Row]:
    """Put rows in the order of `NETS` and `FORMS`."""

    def place(row: Row) -> tuple[int, int]:
        form = FORMS.index(row.form) if row.form in FORMS else -1
        return NETS.index(row.net) if row.net in NETS else len(NETS), form

    return sorted(rows, key=place)


def format_summary(rows: Iterable[Row], torch_pruning: Mapping[str, str]) -> str:
    """One line per net: the worst of all its forms beside the bar and Torch-Pruning."""
    lines = [
        "| net | forms | groups | units | inexact | MACs left, best and worst form | at most | Torch-Pruning | "
        "worst error | keep-sets | |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    by_net: dict[str, list[Row]] = {}
    for row in sort_rows(rows):
        by_net.setdefault(row.net, []).append(row)
    for net, found in by_net.items():
        left = [row.macs_left for row in found]
        errors = [error for row in found for error in (row.error, row.worst_error) if not math.isnan(error)]
        failed = sum(bool(row.findings) for row in found)
        lines.append(
            f"| {net} | {len(found)} | {_span([row.groups for row in found])} | {_span([row.units for row in found])} "
            f"| {_span([row.inexact_groups for row in found])} | {min(left):.3f}, {max(left):.3f} "
            f"| {_bar(net)} | {torch_pruning.get(net, '')} | {max(errors, default=math.nan):.0e} "
            f"| {sum(row.keep_sets for row in found)} | {f'{failed} fall short' if failed else 'met'} |"
        )
    return "\n".join(lines)


def format_details(rows: Iterable[Row]) -> str:
    """One line per file."""
    lines = [
        "| file | groups | units | inexact | frozen units | MACs left | params left | error at 0.5 | "
        "worst of the keep-sets | moved | checker | seconds |",
        "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|---|--:|",
    ]
    for row in sort_rows(rows):
        lines.append(
            f"| {row.name} | {row.groups} | {row.units} | {row.inexact_groups} | {row.frozen} | {row.macs_left:.3f} "
            f"| {row.params_left:.3f} | {_error(row.error)} | {_error(row.worst_error)} ({row.keep_sets}) "
            f"| {row.least_moved:.2g} | {'**no**' if row.fault else 'ok'} | {row.seconds:.1f} |"
        )
    return "\n".join(lines)


def format_findings(rows: Iterable[Row]) -> str:
    """What falls short, file by file."""
    lines = [f"- `{row.name}`: {finding}" for row in sort_rows(rows) for finding in row.findings]
    return "\n".join(lines) or "Nothing falls short: every file meets its bar and equals its masked original."


def _bar(net: str) -> str:
    return f"{BARS[net]:.2f}" if net in BARS else ""


def _span(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _error(error: float) -> str:
    return "runs" if math.isnan(error) else f"{error:.0e}"
