"""What all commands have in common: mistakes as one sentence with exit code 2, and what to do next."""

import difflib
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import click

from gaussian_test.errors import UserError

ARGUMENTS = "gaussian_test.arguments"  # of the command line, as they were given


class PlainErrors(click.Group):
    """A group that ends every mistake a user can make with one sentence and exit code 2.

    A command that does not exist is answered with the one that was probably meant, an interrupted run with the command that goes
    on with it.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments: an interrupted run says how it goes on."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the one that was meant."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and name not in self.commands:
            # by hand: click suggests from 8.4 on, and names no choices
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(sorted(self.commands))}"
            raise click.UsageError(f"No such command {name!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        """Read the arguments, and end what cannot be read with a sentence."""
        try:
            return super().make_context(*arguments, **settings)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            _end(error)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command, and end what a user can mend with a sentence."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _end(error)
        except UserError as error:
            click.echo(f"gaussian-test: {error}", err=True)
            ctx.exit(2)
        except BrokenPipeError:
            # the reader of our output has gone (`show | head`): there is nobody to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except KeyboardInterrupt as interrupt:  # of a run: what is left, and which signal it was
            click.echo(": ".join(["gaussian-test: interrupted", *filter(None, [str(interrupt)])]), err=True)
            if "--resume" in str(interrupt):
                click.echo(f"next: {resumed(ctx.meta[ARGUMENTS])}", err=True)
            ctx.exit(getattr(interrupt, "exit_code", 130))


def _end(error: click.UsageError) -> NoReturn:
    """End with what cannot be read of the command line, and where to find what can."""
    path = error.ctx.command_path if error.ctx else "gaussian-test"
    message = " ".join(error.format_message().split()).rstrip(".").replace(". Did you mean", ": did you mean")
    end = " See" if message.endswith("?") else ": see"
    click.echo(f"gaussian-test: {message[:1].lower() + message[1:]}{end} {path} --help", err=True)
    raise click.exceptions.Exit(2)


def resumed(arguments: list[str]) -> str:
    """Return the command that goes on with an interrupted one."""
    kept = [argument for argument in arguments if argument not in ("--resume", "--overwrite")]
    return shlex.join(["gaussian-test", *kept, "--resume"])


def next_commands(*commands: list[str]) -> str:
    """Return the line that suggests what to do next."""
    return "next: " + " | ".join(shlex.join(["gaussian-test", *command]) for command in commands)


def quiet_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--quiet`` to a command that writes files: nothing on stdout and no progress; what went wrong is still said."""
    return click.option("-q", "--quiet", is_flag=True, help="Print nothing but what went wrong.")(command)


def reporting(quiet: bool) -> AbstractContextManager[None]:
    """Show the events of a run on stderr, unless they are not wanted."""
    from gaussian_test.log import to_stderr

    return nullcontext() if quiet else to_stderr()
