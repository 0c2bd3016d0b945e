"""A progress display on stderr, for people who watch."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

OnStage = Callable[[str, int, int], None]

_PATIENCE = 0.5  # seconds before anything is shown: what ends sooner needs no display
TEXTS = {
    "load": "reading the model",
    "analyze": "finding channel groups",
    "probe": "finding the widths that this machine likes, once",
    "read": "reading samples",
    "observe": "watching the layers on samples",
    "score": "scoring",
    "plan": "planning",
    "rewrite": "rewriting",
    "verify": "proving: pruned = masked",
    "compensate": "fitting the weights that stay",
    "try": "trying them on made-up inputs",
    "recalibrate": "setting statistics of normalizations anew",
    "compare": "comparing with the original",
    "time": "timing original and plans in turns",
    "save": "writing",
    "done": "done",
    "evaluate": "running the model on samples",
    "measure": "measuring",
    "prepare": "making the graph trainable",
    "train": "training",
    "record": "measuring every node",
    "open": "opening the models in processes of their own",
}


@contextlib.contextmanager
def show_progress() -> Iterator[OnStage]:
    """Show the stage that is told, while the block runs; nothing if stderr is no terminal.

    Yields:
        A function that takes the stage, the steps done and the steps in all.
    """
    if not sys.stderr.isatty():
        yield lambda stage, done, steps: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(TEXTS["load"], total=None)

    def tell(stage: str, done: int, steps: int) -> None:
        progress.update(task, description=TEXTS[stage], completed=done, total=steps if steps > 1 else None)

    timer = threading.Timer(_PATIENCE, progress.start)
    timer.daemon = True
    timer.start()
    try:
        yield tell
    finally:
        timer.cancel()
        timer.join()
        progress.stop()
