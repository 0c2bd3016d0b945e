"""Take every ONNX file of some folders into torch, train it for a step, write it back, and say what came of it.

Four questions per file, for docs/bridge.md: does the module give what onnxruntime gives; does a training step run; has
the written file the nodes, operator sets and metadata of the first; and does onnxruntime give on it what the trained
module gives. Every file is a process of its own with limits of time and memory; rows that are there are kept.
"""

from __future__ import annotations

import csv
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnx.inliner
import torch
from deploy.check import measure_error
from markers import replace_between
from outside import open_session
from zoo_sweep import find_shapes, read_rows

import srr_onnx
from srr_onnx.errors import DataError, SrrError, first_line
from srr_onnx.finetuning.bridge import TorchGraph, from_torch, to_torch
from srr_onnx.finetuning.open_batch import find_batch
from srr_onnx.finetuning.operators.call import OPERATORS
from srr_onnx.graph.save import save_model
from srr_onnx.graph.tensors import detach_payload, find_tensors
from srr_onnx.rewriting.verify import make_feeds

Array = np.ndarray[Any, Any]

ROOT = Path(__file__).resolve().parent.parent
# Largest difference of any element of an output, relative to its largest.
TOLERANCE = 1e-3
# Norm of the step relative to that of the weights: enough that a tensor that was not written would be seen.
STEP = 1e-3
BATCH = 2
# Larger outputs are nobody's: the step was too large.
_FAR = 1e6
VALUES = {"sr": 16000}  # samples per second
# What every file's process begins with, imported once.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["onnxruntime", "srr_onnx.finetuning.bridge", "srr_onnx.rewriting.verify"])
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}
FIELDS = ("file", "nodes", "tensors", "error", "batch", "moved", "parted", "written_error", "outcome", "seconds")


def sweep_one(path: Path) -> dict[str, Any]:
    """Take one file into torch and back.

    Args:
        path: The file.

    Returns:
        One row; "outcome" is "agrees", "refused: ...", "nothing learns" or "FALLS SHORT: ...".

    Raises:
        Exception: Whatever is no `SrrError`: a fault of the product.
    """
    row: dict[str, Any] = {"file": path.stem}
    start = time.process_time()
    try:
        model = srr_onnx.load_model(path, find_shapes(path))
        cut = find_cut(model)
        module = to_torch(model, cut=cut)
        row |= {"nodes": len(model.nodes), "tensors": sum(1 for _ in module.parameters())}
        if not row["tensors"]:
            return {**row, "outcome": "nothing learns: no weight is stored where one can change"}
        feeds = make_inputs(model)
        before = run_file(path, feeds, cut)
        row["error"] = measure_error([before], [run_module(module, feeds)])
        row["batch"] = train(module, model, feeds)
        with tempfile.TemporaryDirectory(prefix="bridge-") as folder:
            back = save_model(from_torch(module), Path(folder) / path.name)
            problems, row["parted"] = compare_files(path, back)
            after = run_file(back, feeds, cut)
            row["moved"] = measure_error([before], [after])
            row["written_error"] = measure_error([after], [run_module(module, feeds)])
            faults, remarks = judge((row["error"], row["written_error"]), (path, back), feeds, cut)
    except SrrError as error:
        return {**row, "outcome": f"refused: {error}"}
    row["seconds"] = time.process_time() - start
    problems += faults
    if cut:
        remarks = [f"cut at {', '.join(cut)}", *remarks]
    return {**row, "outcome": f"FALLS SHORT: {'; '.join(problems)}" if problems else "; ".join(["agrees", *remarks])}


def find_cut(model: srr_onnx.Model) -> list[str]:
    """Values at which the graph has to end, as an operator behind them cannot be trained; empty where there is none."""
    unknown = set[str]()  # what such operators make, and what follows from it
    found = dict[str, None]()
    for node in model.nodes:
        if model.constants.keys() >= set(node.outputs):
            continue
        reads = [name for name in (*node.inputs, *node.captured) if name]
        # operators of other domains stay in the graph, and are refused by name
        is_known = node.domain or node.op_type == "If" or ("", node.op_type, node.since_version) in OPERATORS
        if is_known and unknown.isdisjoint(reads):
            continue
        if unknown.isdisjoint(reads):
            made = (name for name in reads if name not in {*model.constants, *model.inputs})
            found.update(dict.fromkeys(name for name in made if model.dtypes[name].kind == "f"))
        unknown.update(node.outputs)
    return list(found | dict.fromkeys(name for name in model.outputs if name not in unknown)) if found else []


def judge(
    errors: Sequence[float], paths: Sequence[Path], feeds: Mapping[str, Array], cut: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Say which differences, of module and written file, are too large, and which of those a rounding explains."""
    faults, remarks = list[str](), list[str]()
    for what, error, path in zip(("the module", "the written file"), errors, paths, strict=True):
        if error <= TOLERANCE:
            continue
        other = {name: np.nextafter(x, np.inf) if x.dtype.kind == "f" else x for name, x in feeds.items()}
        noise = measure_error([run_file(path, feeds, cut)], [run_file(path, other, cut)])
        found = f"{what} differs by {error:.1e}"
        if error <= noise:
            remarks.append(f"{found}, what a rounding of the input changes in onnxruntime by {noise:.1e}")
        else:
            faults.append(found)
    return faults, remarks


def make_inputs(model: srr_onnx.Model, seed: int = 0) -> dict[str, Array]:
    """Random inputs, but for those of which only some values mean anything."""
    feeds = make_feeds(model, seed)
    return {name: np.full_like(feeds[name], VALUES[name]) if name in VALUES else feeds[name] for name in feeds}


def run_file(path: Path, feeds: Mapping[str, Array], cut: Sequence[str] = ()) -> dict[str, Array]:
    """The floating-point outputs of a file in onnxruntime, or the values at which the graph is cut."""
    source: Path | onnx.ModelProto = path
    if cut:
        source = onnx.load(path)
        del source.graph.output[:]
        source.graph.output.extend(onnx.ValueInfoProto(name=name) for name in cut)
    session = open_session(source)
    names = [value.name for value in session.get_outputs()]
    found = zip(names, session.run(names, dict(feeds)), strict=True)
    return {name: value for name, value in found if value.dtype.kind == "f"}


def run_module(module: TorchGraph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The floating-point outputs of a module in evaluation mode."""
    module.eval()
    with torch.no_grad():
        found = module(*to_inputs(module, feeds))
    return {name: value.numpy() for name, value in zip(module.outputs, found, strict=True) if value.is_floating_point()}


def to_inputs(module: TorchGraph, feeds: Mapping[str, Array]) -> list[torch.Tensor]:
    """Arrays as the tensors that a module takes."""
    tensors = [torch.tensor(feeds[name]) for name in module.inputs]
    return [tensor.to(module.dtype) if tensor.is_floating_point() else tensor for tensor in tensors]


def train(module: TorchGraph, model: srr_onnx.Model, feeds: Mapping[str, Array]) -> int:
    """Take one step of gradient descent that makes the outputs larger: a sigmoid far out would become mere rounding.

    Args:
        module: The module; changed in place.
        model: Its model.
        feeds: Inputs; where the step makes their outputs huge, a smaller one is taken.

    Returns:
        Samples in the batch: two where the file takes them, else as many as it says.

    Raises:
        SrrError: It does not run.
    """
    module.train()
    batch = find_batch(model) or 0
    found = None
    if batch == 1:
        parts = [make_inputs(model, seed) for seed in range(BATCH)]
        try:
            found = module(*to_inputs(module, {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}))
            batch = BATCH
        except DataError as error:
            click.echo(f"one sample only: {error}", err=True)
    if found is None:
        found = module(*to_inputs(module, make_inputs(model)))
    losses = [value.square().mean() for value in found if value.is_floating_point() and value.requires_grad]
    if not losses:
        raise DataError("no gradient reaches a weight from the outputs")
    (-torch.stack(losses).sum()).backward()
    weights = [value for value in module.parameters() if value.grad is not None]
    size = torch.linalg.vector_norm(torch.stack([value.detach().double().norm() for value in weights]))
    rise = torch.nn.utils.get_total_norm(value.grad.double() for value in weights if value.grad is not None)
    rate, starts = STEP * float(size / rise), [value.detach().clone() for value in weights]
    while True:
        torch.optim.SGD(weights, rate).step()
        if all(np.abs(value).max() < _FAR for value in run_module(module, feeds).values()):
            return batch
        rate *= 0.1
        with torch.no_grad():
            for value, start in zip(weights, starts, strict=True):
                value.copy_(start)


def compare_files(original: Path, written: Path) -> tuple[list[str], int]:
    """Compare two files but for the numbers in their floating-point tensors.

    Args:
        original: The first.
        written: What it has become.

    Returns:
        What differs, and how many nodes read a tensor of their own in place of one that others read too.
    """
    first, second = (onnx.load(path, load_external_data=False) for path in (original, written))
    if first.functions:
        first = onnx.inliner.inline_local_functions(first)
    for proto in (first, second):
        for tensor in find_tensors(proto):
            if tensor.data_type in FLOATS:
                detach_payload(tensor)
    found = [
        f"{field} is another"
        for field in ("ir_version", "opset_import", "metadata_props", "producer_name", "doc_string")
        if getattr(first, field) != getattr(second, field)
    ]
    found += [f"graph {field} is another" for field in ("name", "input", "output")
              if getattr(first.graph, field) != getattr(second.graph, field)]  # fmt: skip
    if len(first.graph.node) != len(second.graph.node):
        return [*found, f"{len(first.graph.node)} nodes became {len(second.graph.node)}"], 0
    stored = {tensor.name for tensor in first.graph.initializer}
    own = {tensor.name for tensor in second.graph.initializer} - stored
    parted = 0
    for one, other in zip(first.graph.node, second.graph.node, strict=True):
        inputs = [new if new in own else old for old, new in zip(one.input, other.input, strict=False)]
        parted += inputs != list(one.input)
        del one.input[: len(inputs)]
        one.input[:0] = inputs
        if one != other:
            found.append(f"node {other.name!r} ({other.op_type}) is another")
    return found, parted


def sweep_apart(path: Path, seconds: int, gigabytes: int) -> dict[str, Any]:
    """Run `sweep_one` in a process of its own, with limits of processor time and memory."""
    with ProcessPoolExecutor(1, _SERVER, _limit, (seconds, gigabytes)) as pool:
        try:
            return pool.submit(sweep_one, path).result()
        except BrokenProcessPool:
            return {"file": path.stem, "outcome": f"not done: ended, as after {seconds} s of one core"}
        except Exception as error:
            return {"file": path.stem, "outcome": f"CRASHES: {type(error).__name__}: {first_line(error)}"}


def _limit(seconds: int, gigabytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))
    torch.set_num_threads(1)


def format_rows(rows: list[dict[str, Any]]) -> str:
    """Make the table: one line per net, its worst form, and below it every file that did not go the whole way."""
    nets: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        nets.setdefault(row["file"].split(".")[0], []).append(row)
    lines = [
        "| net | files | there and back | nodes | learning tensors | in torch | after a step, written | moved by it |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for net, found in nets.items():
        done = [row for row in found if row["outcome"].startswith("agrees")]
        cells = [net, len(found), len(done)]
        cells += [_span([int(row[name]) for row in done]) for name in ("nodes", "tensors")]
        cells += [_number(max, done, "error"), _number(max, done, "written_error"), _number(min, done, "moved")]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    others = [f"- `{row['file']}`: {row['outcome']}" for row in rows if row["outcome"] != "agrees"]
    return "\n".join([*lines, "", *(others or ["Every file went there and back."])])


def _span(values: list[int]) -> str:
    return "" if not values else str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _number(choose: Any, rows: list[dict[str, Any]], name: str) -> str:
    return f"{choose(float(row[name]) for row in rows):.0e}" if rows else ""


def write_rows(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the rows, in the order of their names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()
        for name in sorted(rows):
            row = rows[name]
            writer.writerow({key: f"{value:.2g}" if isinstance(value, float) else value for key, value in row.items()})


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", default="*.onnx", show_default=True, help="Glob of file names.")
@click.option("--again", is_flag=True, help="Run files that have a row already.")
@click.option("--most-seconds", default=90, show_default=True, help="Of one core, per file.")
@click.option("--most-memory", default=12, show_default=True, help="GB per file.")
@click.option("--most-megabytes", default=700, show_default=True, help="Larger files are left out.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs" / "bridge.md", help="Page to update.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), default=ROOT / "docs" / "data" / "bridge.csv")
def main(
    folders: tuple[Path, ...],
    only: str,
    again: bool,
    most_seconds: int,
    most_memory: int,
    most_megabytes: int,
    out: Path,
    csv_path: Path,
) -> None:
    """Sweep all files of FOLDERS that have no row in the CSV yet, and write the table anew."""
    rows = read_rows(csv_path)
    for path in sorted(path for folder in folders for path in folder.glob(only)):
        if path.stem in rows and not again:
            continue
        megabytes = path.stat().st_size / 1e6
        if megabytes > most_megabytes:
            rows[path.stem] = {"file": path.stem, "outcome": f"left out: {megabytes:.0f} MB"}
        else:
            rows[path.stem] = sweep_apart(path, most_seconds, most_memory)
        click.echo("  ".join(f"{name}={value}" for name, value in rows[path.stem].items()))
        write_rows(csv_path, rows)
    rows = read_rows(csv_path)
    replace_between(out, "sweep", format_rows(list(rows.values())))


if __name__ == "__main__":
    main()
