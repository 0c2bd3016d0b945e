"""Realised speed-up: milliseconds got for FLOPs paid, with widths aligned and not, and goals in latency.

Every net is pruned with `--align auto`, with `--align off`, by Torch-Pruning to about the same MACs where it can build
the net, and to a goal in latency. The files are then timed in turns in a process of their own. Rows that the file of
results has already are not measured again.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from machine import ROOT, describe_machine
from report import make_table, read_csv

import srr_onnx
from srr_onnx.graph.cost import count_cost
from srr_onnx.graph.load import load_model
from srr_onnx.planning.alignment import Alignment
from srr_onnx.targets.staircase import probe_steps
from srr_onnx.targets.target import Target
from srr_onnx.validation.latency import measure_latency
from srr_onnx.validation.profile import make_batch

sys.path.insert(0, str(ROOT / "tools"))
from markers import replace_between

RESULTS = ROOT / "benchmarks/results/latency.csv"
FIELDS = ("net", "threads", "way", "macs_left", "original_ms", "ms", "detail", "date", "processor", "load")
# Files of the zoo, and whether Torch-Pruning's script builds the same net.
NETS = {
    "resnet50": ("resnet50.ts_folded.onnx", True),
    "vgg16_bn": ("vgg16_bn.ts_folded.onnx", True),
    "mobilenet_v2": ("mobilenet_v2.ts_folded.onnx", True),
    "efficientnet_lite0": ("efficientnet_lite0.ts.onnx", False),
    "ppocr_det": ("ppocr_det.onnx", False),
    "densenet121": ("densenet121.ts_folded.onnx", True),
}
SHARE, GOAL = 0.44, 0.4
LEAST_REALISED, CLOSE = 0.95, 0.05
_SECONDS = 7.0
_WAYS = {"aligned": "--align auto", "unaligned": "--align off", "torch-pruning": "Torch-Pruning"}


@click.group(invoke_without_command=True)
@click.option("--zoo", type=click.Path(path_type=Path), default="zoo", show_default=True, help="Folder of the nets.")
@click.option("--rivals", help="Python that has torch, torchvision, timm and torch-pruning; left out if not given.")
@click.option("--nets", default=",".join(NETS), show_default=True)
@click.option("--threads", default="1,2", show_default=True)
@click.option("--page-only", is_flag=True, help="Only write the table anew.")
@click.pass_context
def main(ctx: click.Context, zoo: Path, rivals: str | None, nets: str, threads: str, page_only: bool) -> None:
    """Measure what the results do not have yet, and write the table of docs/latency.md."""
    if ctx.invoked_subcommand:
        return
    for net in [] if page_only else nets.split(","):
        for count in map(int, threads.split(",")):
            measure(zoo, net, count, rivals)
    write_page()


@main.command("time")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--threads", type=int, default=1)
def time_files(files: tuple[Path, ...], threads: int) -> None:
    """Time FILES in turns, and print milliseconds of the fastest run of each, and MACs."""
    from srr_onnx.calibration.runs import open_session

    models = [load_model(file) for file in files]
    target = Target(threads=threads)
    runners = [open_session(model, target=target)[0].make_runner(make_batch(model)) for model in models]
    found = measure_latency(runners, rounds=400, budget_seconds=_SECONDS * len(files))
    rows = [
        {"ms": 1e3 * latency.fastest, "macs": count_cost(model).macs}
        for latency, model in zip(found, models, strict=True)
    ]
    click.echo(json.dumps(rows))


def measure(zoo: Path, net: str, threads: int, rivals: str | None) -> None:
    """Prune and time one net with one number of threads, if its rows are missing, and append them to the results."""
    name, is_rivalled = NETS[net]
    known = {(row["net"], row["threads"], row["way"]) for row in read_csv(RESULTS)}
    ways = ["aligned", "unaligned", "goal", *(["torch-pruning"] if is_rivalled and rivals else [])]
    if all((net, str(threads), way) in known for way in ways):
        return
    source, target = zoo / name, Target(threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, Path] = {}
        details = {"aligned": json.dumps(Alignment(probe_steps(target), "auto").to_json()["steps"])}
        for way in ways:
            made[way] = Path(folder) / f"{way}.onnx"
            click.echo(f"{net}, {threads} threads, {way}", err=True)
            if way == "torch-pruning":
                details[way] = prune_by_rival(str(rivals), net, source, made[way])
            elif way == "goal":
                try:
                    plan = srr_onnx.prune(source, made[way], latency=GOAL, target=target, compensate="none").plan
                    details[way] = json.dumps({key: plan.latency[key] for key in ("table_error", "rounds")})
                except srr_onnx.SrrError as error:
                    details[way] = f"failed: {error}"
                    del made[way]
            else:
                runs_on = target if way == "aligned" else None  # which asks for widths that it likes
                srr_onnx.prune(source, made[way], flops=SHARE, target=runs_on, compensate="none")
        together = {way: path for way, path in made.items() if way != "goal"}
        original, *others = run_timing([source, *together.values()], threads)
        timed = {way: (original, row) for way, row in zip(together, others, strict=True)}
        if "goal" in made:  # which is judged as it was met: beside the original alone
            timed["goal"] = tuple(run_timing([source, made["goal"]], threads))
    facts = describe_machine()
    is_new = not RESULTS.exists()
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if is_new:
            writer.writeheader()
        for way in ways:
            if (net, str(threads), way) in known:
                continue
            before, row = timed.get(way, (original, None))
            writer.writerow(
                {
                    "net": net,
                    "threads": threads,
                    "way": way,
                    "macs_left": "" if row is None else f"{row['macs'] / before['macs']:.4f}",
                    "original_ms": f"{before['ms']:.4f}",
                    "ms": "" if row is None else f"{row['ms']:.4f}",
                    "detail": details.get(way, ""),
                    **{key: facts[key] for key in ("date", "processor", "load")},
                }
            )


def run_timing(files: list[Path], threads: int) -> list[dict[str, float]]:
    """Time files in a fresh process."""
    command = [sys.executable, __file__, "time", *map(str, files), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1]))


def prune_by_rival(python: str, net: str, source: Path, output: Path) -> str:
    """Prune by Torch-Pruning, the same share of every layer, so that as many MACs go as here; tells the share."""
    whole, ratio = count_cost(load_model(source)).macs, 1 - (1 - SHARE) ** 0.5
    script = str(ROOT / "benchmarks/torch_pruning_way.py")
    for _ in range(3):
        command = [python, script, net, str(output), "--ratio", f"{ratio:.4f}", "--uniform"]
        subprocess.run(command, capture_output=True, check=True)
        left = count_cost(load_model(output)).macs / whole
        if abs(left - (1 - SHARE)) < 0.01:
            break
        ratio = 1 - (1 - ratio) * ((1 - SHARE) / left) ** 0.5
    return f"ratio {ratio:.4f}"


def write_page() -> None:
    """Write the tables of docs/latency.md."""
    rows = read_csv(RESULTS)
    if not rows:
        return
    lines, goals, verdicts = [], [], []
    for net in NETS:
        for threads in sorted({row["threads"] for row in rows if row["net"] == net}, key=int):
            found = {row["way"]: row for row in rows if (row["net"], row["threads"]) == (net, threads)}
            cells = [describe(found.get(way)) for way in _WAYS]
            lines.append([net, threads, f"{float(found['aligned']['original_ms']):.2f}", *cells])
            realised = find_realised(found["aligned"])
            is_best = float(found["aligned"]["ms"]) <= 1.02 * float(found["unaligned"]["ms"])
            verdicts.append(realised >= LEAST_REALISED and is_best)
            goals.append([net, threads, *describe_goal(found["goal"])])
    header = ["net", "threads", "original ms", *(f"{name}: ms, realised" for name in _WAYS.values())]
    text = make_table(header, lines)
    text += f"\n\nRealised at least {LEAST_REALISED}, and not slower than unaligned, with `--align auto`: "
    text += f"{sum(verdicts)} of {len(verdicts)}.\n\n"
    text += make_table(["net", "threads", "goal ms", "got ms", "off by", "error of the table", "plans"], goals)
    machine = rows[-1]
    text += f"\n\nMeasured on {machine['date']}, {machine['processor']}, onnxruntime as in "
    text += "[performance.md](performance.md); the load of the machine at the end of each row is in the results."
    replace_between(ROOT / "docs/latency.md", "latency", text)


def find_realised(row: dict[str, str]) -> float:
    """Speed-up divided by the factor by which the MACs shrank."""
    return float(row["original_ms"]) / float(row["ms"]) * float(row["macs_left"])


def describe(row: dict[str, str] | None) -> str:
    """Milliseconds, and what of the MACs that went was time."""
    return "" if row is None or not row["ms"] else f"{float(row['ms']):.2f}, {find_realised(row):.2f}"


def describe_goal(row: dict[str, str]) -> list[str]:
    """Goal and result of one line."""
    goal = (1 - GOAL) * float(row["original_ms"])
    if not row["ms"]:
        return [f"{goal:.2f}", row["detail"], "", "", ""]
    facts, off = json.loads(row["detail"]), float(row["ms"]) / goal - 1
    verdict = "" if abs(off) <= CLOSE else " (missed)"
    return [
        f"{goal:.2f}",
        f"{float(row['ms']):.2f}",
        f"{off:+.1%}{verdict}",
        f"{facts['table_error']:.1%}",
        str(len(facts["rounds"])),
    ]


if __name__ == "__main__":
    main()
