"""The program `srr-onnx`: which commands there are, and how an error becomes one line and an exit code.

A command's module is imported when the command is called, so that `srr-onnx --help` loads no numerical library.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

import click

import srr_onnx
from srr_onnx.errors import SrrError
from srr_onnx.wording import printable

# Command: its module, and what the list of commands says of it.
COMMANDS = {
    "inspect": ("srr_onnx.cli.inspect", "Show what a model costs, what can be pruned, and what not and why."),
    "score": ("srr_onnx.cli.score", "Show how redundant each group of channels is."),
    "curve": ("srr_onnx.cli.curve", "Predict the damage of reductions, from samples without labels."),
    "prune": ("srr_onnx.cli.prune", "Make a model smaller and prove the result."),
    "apply": ("srr_onnx.cli.apply", "Replay a plan that `prune` has written."),
    "finetune": ("srr_onnx.cli.finetune", "Train a pruned model on labels, to be like a teacher, or both."),
    "optimize": ("srr_onnx.cli.optimize", "Prune, train and judge a model as a recipe says, step by step."),
    "evaluate": ("srr_onnx.cli.evaluate", "Measure accuracy on labelled data, or agreement with another model."),
    "compare": ("srr_onnx.cli.compare", "Compare a model with its reference: cost, accuracy, agreement."),
    "profile": (
        "srr_onnx.cli.profile",
        "Measure latency, throughput, memory and the time of every node; compare models.",
    ),
    "demo": (
        "srr_onnx.cli.demo",
        "Prune and fine-tune the bundled model; measure accuracy and latency of every stage.",
    ),
}

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143
TRACEBACK_VARIABLE = "SRR_ONNX_TRACEBACK"
# Where a command finds its own command line, in click's `Context.meta`.
COMMAND_LINE = "srr_onnx.command_line"


class Program(click.Group):
    """A group that imports a command when it is called, and the only place where errors are translated."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Keep the command line as it was typed, for reports."""
        words = [info_name or "", *args]
        context = super().make_context(info_name, args, *rest, **extra)
        context.meta[COMMAND_LINE] = shlex.join(words)
        return context

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; its module has a function of its name."""
        if cmd_name not in COMMANDS:
            return None
        with _signals_wait():  # one that reaches a native library while it loads can end the process in a crash
            module = importlib.import_module(COMMANDS[cmd_name][0])
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run, and leave with an exit code."""
        sys.exit(self._run(*args, **{"prog_name": "srr-onnx", **extra, "standalone_mode": False}))

    def _run(self, *args: Any, **extra: Any) -> int:
        try:
            return self._translate(*args, **extra)
        except (click.Abort, KeyboardInterrupt) as error:
            return _fail("interrupted: nothing was written by halves", EXIT_INTERRUPTED, error, label="")

    def _translate(self, *args: Any, **extra: Any) -> int:
        try:
            result = super().main(*args, **extra)
            sys.stdout.flush()
        except SrrError as error:
            return _fail(str(error), error.exit_code, error)
        except click.UsageError as error:
            hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
            return _fail(error.format_message() + hint, EXIT_USAGE, error)
        except click.ClickException as error:
            return _fail(error.format_message(), error.exit_code, error)
        except MemoryError as error:
            return _fail("out of memory: the model is too large for this machine", EXIT_ERROR, error)
        except BrokenPipeError:
            _drop(sys.stdout)
            return EXIT_ERROR
        except OSError as error:
            _drop(sys.stdout)
            where = repr(str(error.filename)) if error.filename is not None else "the result cannot be printed"
            return _fail(f"{where}: {error.strerror or error}", EXIT_ERROR, error)
        except Exception as error:
            if stop := _find_stop(error):
                raise stop from None
            name = type(error).__name__
            text = f"{name}: {error} (please report this; {TRACEBACK_VARIABLE}=1 shows where it happened)"
            return _fail(text, EXIT_ERROR, error, label="internal error: ")
        return result if isinstance(result, int) else 0


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold Ctrl-C and a request to end back until the block is done; where the system has no such thing, do not."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fail(message: str, exit_code: int, error: BaseException, label: str = "error: ") -> int:
    """Print one line to stderr."""
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    try:
        click.echo(label + printable(" ".join(message.splitlines())), err=True)
    except OSError as problem:  # the reader of stderr has gone, or its disk is full: the exit code is left
        if problem.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        _drop(sys.stderr)
    return exit_code


def _drop(stream: TextIO) -> None:
    """Send what a stream still holds nowhere, or Python complains about it at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # it is no file, e.g. in tests
        return


def _find_stop(error: BaseException | None) -> BaseException | None:
    """The signal behind an error: one that comes while a library is imported arrives as an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
        error = error.__cause__ or error.__context__
    return error


def _stop(signal_number: int, frame: object) -> NoReturn:
    """Leave through all `finally` blocks, so that temporary files are removed."""
    sys.exit(EXIT_TERMINATED)


@click.group(cls=Program, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(srr_onnx.__version__, package_name="srr-onnx", prog_name="srr-onnx")
@click.pass_context
def program(ctx: click.Context) -> None:
    r"""Prune exported CNNs in ONNX form by structural redundancy, and prove the result.

    \b
    srr-onnx inspect model.onnx               what can go
    srr-onnx prune model.onnx --flops 44%     writes model.pruned.onnx
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Entry point of the command `srr-onnx`."""
    signal.signal(signal.SIGTERM, _stop)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 open until the end
    try:
        program.main()
    except SystemExit as end:
        if end.code in (EXIT_INTERRUPTED, EXIT_TERMINATED):
            # Libraries that were stopped half-way through their start can crash while Python takes them down.
            sys.stderr.flush()
            os._exit(int(end.code))
        raise


if __name__ == "__main__":
    main()
