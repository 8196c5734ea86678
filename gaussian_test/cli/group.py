"""Shared behaviour of commands: plain errors and next steps."""

import difflib
import errno
import gc
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, NoReturn

import click

from gaussian_test.errors import UserError
from gaussian_test.text import printable

UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of standard output, which has no file name
ARGUMENTS = "gaussian_test.arguments"  # raw arguments of the command line


@contextmanager
def importing() -> Iterator[None]:
    """Import without looking for garbage, of which there is none: a sixth of the time of a short run."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()  # nor is it looked for later among what was imported
        if enabled:
            gc.enable()


class PlainErrors(click.Group):
    """A group that reports every user error as one sentence with exit code 2.

    For an unknown command it suggests the nearest one; for an interrupted run, the command that resumes it.
    """

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run the program, and report output that cannot be written as one sentence."""
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: its idle threads take no core from others
        try:
            return super().main(*arguments, **settings)
        except OSError as error:
            if error.filename is None and error.errno not in UNWRITTEN:
                raise
            _drop_output()  # what is left of it would fail again at the end
            what = printable(str(error.filename or "standard output"))
            click.echo(f"gaussian-test: {what}: {error.strerror}: make room or write elsewhere", err=True)
            sys.exit(2)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Store the arguments, for the command that resumes an interrupted run."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest the nearest one."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and name not in self.commands:
            # by hand: click suggests from 8.4 on, and names no choices
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(sorted(self.commands))}"
            raise click.UsageError(f"No such command {name!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        """Parse the arguments, and report errors as one sentence."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a locale may know neither ∞ nor the bytes of a file's name
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().make_context(*arguments, **settings)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            _end(error)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command, and report user errors as one sentence."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _end(error)
        except UserError as error:
            click.echo(f"gaussian-test: {error}", err=True)
            ctx.exit(2)
        except BrokenPipeError:
            # the reader of our output has gone (`show | head`)
            _drop_output()
            ctx.exit(0)
        except KeyboardInterrupt as interrupt:  # its message tells what is left, its exit code the signal
            click.echo(": ".join(["gaussian-test: interrupted", *filter(None, [str(interrupt)])]), err=True)
            if "--resume" in str(interrupt):
                click.echo(f"next: {resumed(ctx.meta[ARGUMENTS])}", err=True)
            ctx.exit(getattr(interrupt, "exit_code", 130))


def _drop_output() -> None:
    with suppress(OSError, ValueError):  # not one of the operating system
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(error: click.UsageError) -> NoReturn:
    """Exit with the usage error and a pointer to the help."""
    path = error.ctx.command_path if error.ctx else "gaussian-test"
    message = " ".join(error.format_message().split()).rstrip(".").replace(". Did you mean", ": did you mean")
    end = " See" if message.endswith("?") else ": see"
    click.echo(f"gaussian-test: {message[:1].lower() + message[1:]}{end} {path} --help", err=True)
    raise click.exceptions.Exit(2)


def resumed(arguments: list[str]) -> str:
    """Return the command that resumes an interrupted one."""
    kept = [argument for argument in arguments if argument not in ("--resume", "--overwrite")]
    return shlex.join(["gaussian-test", *kept, "--resume"])


def next_commands(*commands: list[str]) -> str:
    """Return the line that suggests next commands."""
    return "next: " + " | ".join(shlex.join(["gaussian-test", *command]) for command in commands)


def quiet_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--quiet`` to a command that writes files: no stdout and no progress, but errors are still shown."""
    return click.option("-q", "--quiet", is_flag=True, help="Print nothing but what went wrong.")(command)


def reporting(quiet: bool) -> AbstractContextManager[None]:
    """Show the events of a run on stderr, unless quiet."""
    from gaussian_test.log import to_stderr

    return nullcontext() if quiet else to_stderr()
