"""Kill a process at random moments of its writes and look at what is left; counts go into docs/reliability.md.

    python tools/kill_writes.py --kills 200 --write

A child process writes two different prunings of one network over each other, model and plan, without pause, until it is
killed. Every file that is found then has to be one of the two, whole; anything else in the folder has to be a hidden
`.part` file.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
import onnx
from markers import replace_between
from onnx import helper, numpy_helper

from srr_onnx.pipeline import prune
from srr_onnx.rewriting.output import save_results
from srr_onnx.validation.result import Pruned

PAGE = Path(__file__).resolve().parent.parent / "docs/reliability.md"


def make_network(path: Path, width: int = 512) -> None:
    """Write a network of three convolutions, of a size that is not written at one blow (2 MB)."""
    rng = np.random.default_rng(0)
    nodes, tensors = [], []
    for place, (filters, channels) in enumerate([(width, 3), (width, width), (width, width), (4, width)]):
        array = rng.standard_normal((filters, channels, 1, 1), np.float32)
        tensors.append(numpy_helper.from_array(array, f"w{place}"))
        nodes.append(helper.make_node("Conv", [f"x{place}", f"w{place}"], [f"x{place + 1}"], name=f"conv{place}"))
    ends = [helper.make_tensor_value_info(name, 1, [1, size, 2, 2]) for name, size in (("x0", 3), ("x4", 4))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_for_ever(versions: list[Pruned], folder: Path) -> None:
    """Write the versions over one another until the process is killed."""
    while True:
        for version in versions:
            save_results(version.model, version.plan, folder / "out.onnx", folder / "plan.json", force=True)


def kill_often(kills: int, seed: int) -> Counter[str]:
    """Kill a writing process again and again.

    Returns:
        What was found, by kind.

    Raises:
        ValueError: A file was torn, or something else was left.
    """
    moments = random.Random(seed)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        source, folder = Path(name) / "net.onnx", Path(name) / "out"
        folder.mkdir()
        make_network(source)
        versions = [prune(source, ratio=ratio, criterion="l1", compensate="none") for ratio in (0.25, 0.5)]
        whole: dict[str, set[bytes]] = {"out.onnx": set(), "plan.json": set()}
        for version in versions:
            save_results(version.model, version.plan, folder / "out.onnx", folder / "plan.json", force=True)
            for file, contents in whole.items():
                contents.add((folder / file).read_bytes())
        for _ in range(kills):
            before = {file: (folder / file).read_bytes() for file in whole}
            child = os.fork()
            if not child:
                write_for_ever(versions, folder)
            time.sleep(moments.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            after = {file: (folder / file).read_bytes() for file in whole}
            if any(after[file] not in contents for file, contents in whole.items()):
                raise ValueError("a torn file")
            found["another version than before" if after != before else "the version of before"] += 1
            left = [path for path in folder.iterdir() if path.name not in whole]
            if any(not (path.name.startswith(".") and path.name.endswith(".part")) for path in left):
                raise ValueError(f"left behind: {left}")
            found["hidden .part files left"] += len(left)
            for path in left:
                path.unlink()
    return found


@click.command()
@click.option("--kills", default=200, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--write", is_flag=True, help="Write the counts into docs/reliability.md.")
def main(kills: int, seed: int, write: bool) -> None:
    """Kill a writing process at random moments."""
    found = kill_often(kills, seed)
    parts = found.pop("hidden .part files left")
    kinds = ", ".join(f"{kind} {count} times" for kind, count in sorted(found.items()))
    text = f"{kills} kills, no torn file: {kinds}; hidden `.part` files left: {parts}, nothing else."
    click.echo(text)
    if write:
        replace_between(PAGE, "kills", f"`python tools/kill_writes.py --kills {kills}`: {text}")


if __name__ == "__main__":
    main()
