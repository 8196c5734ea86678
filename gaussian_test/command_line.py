"""The command line, ``gaussian-test run|sweep|status|show|plot|compare|samplers``; each command imports what it needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gaussian_test._version import __version__
from gaussian_test.errors import UserError


class _PlainErrors(click.Group):
    """A group that ends every mistake a user can make with one sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"gaussian-test: {error}", err=True)
            ctx.exit(2)
        except BrokenPipeError:
            # the reader of our output has gone (`show | head`): there is nobody to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except KeyboardInterrupt as interrupt:  # of a run: what is left, and which signal it was
            click.echo(": ".join(["gaussian-test: interrupted", *filter(None, [str(interrupt)])]), err=True)
            ctx.exit(getattr(interrupt, "exit_code", 130))


@click.group(cls=_PlainErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gaussian-test")
def main() -> None:
    """Is the score affine, when is a sample forgotten, when does its class change: the Gaussian Test by U-Turn diffusion."""


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that a run and a sweep have in common: what is changed, trusted and replaced, and who computes the shards."""
    for option in reversed(
        (
            click.option(
                "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the experiment (repeatable)."
            ),
            click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Where to compute."),
            click.option(
                "--trust",
                nargs=2,
                multiple=True,
                metavar="FILE SHA256",
                callback=lambda _context, _option, pairs: dict(pairs),
                help="Open a file that runs code (a pickle, TorchScript) if it has this sha256 (repeatable).",
            ),
            click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Compute in N processes of this machine."),
            click.option(
                "--scheduler", metavar="ADDRESS", help="Compute on a running Dask cluster: its address or scheduler file."
            ),
            click.option("--threads", type=click.IntRange(min=1), help="Threads of torch in each process."),
            click.option("--resume", is_flag=True, help="Go on with what was interrupted: what is finished is kept."),
            click.option("--overwrite", is_flag=True, help="Run again, and replace what is there."),
        )
    ):
        command = option(command)
    return command


@main.command(epilog="Example: gaussian-test run -o run.nc --set samples=all --set reverse.steps=32")
@click.argument("experiment", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("run.nc"), show_default=True, help="Archive to write."
)
@run_options
@click.option("--plot", "folder", type=click.Path(path_type=Path), help="Also draw the figures into this folder.")
def run(experiment: Path | None, output: Path, changes: tuple[str, ...], folder: Path | None, **options: Any) -> None:
    """Run an EXPERIMENT (a YAML file; default: the Gaussian Test of the embedded digits) and write its archive."""
    from gaussian_test.experiment import Experiment

    settings = Experiment.load(experiment, changes)  # refused before anything heavy is loaded
    from gaussian_test.run_log import to_stderr
    from gaussian_test.runner import run as run_experiment

    with to_stderr():
        result = run_experiment(settings, output, **options)
    click.echo(f"{result.gaussian_test.show()}\n\narchive: {output}")
    if options["device"] == "auto":
        taken = result.attrs["device"]
        click.echo(f"device: {taken}, taken by --device auto" + (": no CUDA device was found" if taken == "cpu" else ""))
    if folder is not None:
        _plot(result, folder)


@main.command(epilog="Example: gaussian-test sweep sweep.yaml -o results --workers 4")
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), required=True, help="Folder for the archives.")
@run_options
def sweep(sweep: Path, folder: Path, changes: tuple[str, ...], **options: Any) -> None:
    """Run every experiment of a SWEEP, a YAML file in which the key 'sweep' maps keys to lists of values."""
    from gaussian_test.sweep import Sweep

    chosen = Sweep.load(sweep, changes)
    from gaussian_test.run_log import to_stderr
    from gaussian_test.run_status import status, status_text
    from gaussian_test.sweep_run import run_sweep

    with to_stderr():
        run_sweep(chosen, folder, **options)
    click.echo(status_text(status(folder)))


@main.command(name="status", epilog="Example: gaussian-test status results")
@click.argument("folder", type=click.Path(path_type=Path))
def show_status(folder: Path) -> None:
    """Say what has become of the runs in a FOLDER (or of the run of one archive): finished, running, interrupted, failed."""
    from gaussian_test.run_status import status, status_text

    click.echo(status_text(status(folder)))


@main.command(epilog="Example: gaussian-test show run.nc")
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--all", "every", is_flag=True, help="Show the observables at every turn time.")
def show(archive: Path, every: bool) -> None:
    """Print the times, the test and the observables of an ARCHIVE as tables."""
    from gaussian_test import accessor as accessor  # registers the accessor
    from gaussian_test.archive import open_archive

    click.echo(open_archive(archive).gaussian_test.show(every))


@main.command(epilog="Example: gaussian-test plot run.nc -o figures")
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), required=True, help="Folder for the figures.")
def plot(archive: Path, folder: Path) -> None:
    """Draw the figures of an ARCHIVE as PNG and PDF."""
    from gaussian_test import accessor as accessor  # registers the accessor
    from gaussian_test.archive import open_archive

    _plot(open_archive(archive), folder)


def _plot(result: object, folder: Path) -> None:
    from gaussian_test.errors import user_input

    with user_input():
        folder.mkdir(parents=True, exist_ok=True)
    for name in result.gaussian_test.plot(folder):  # type: ignore[attr-defined] # an accessor, registered at run time
        click.echo(f"figure: {folder / name}.png, .pdf")


@main.command(epilog="Example: gaussian-test compare empirical.nc mixture.nc")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
def compare(a: Path, b: Path) -> None:
    """Compare two archives, A and B: times and curves, b - a, with bands (of paired differences where they share samples)."""
    from gaussian_test.archive import open_archive
    from gaussian_test.comparison import compare as compare_results
    from gaussian_test.table import compare_text

    click.echo(compare_text(compare_results(open_archive(a), open_archive(b)), (str(a), str(b))))


@main.command(epilog="Example: gaussian-test samplers --steps 8,16,32,64 -o figures")
@click.argument("experiment", required=False, type=click.Path(path_type=Path))
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the experiment (repeatable).")
@click.option("--steps", default="4,8,16,32,64,128,256", show_default=True, help="Numbers of reverse steps.")
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Folder for the figure.")
def samplers(experiment: Path | None, changes: tuple[str, ...], steps: str, folder: Path | None) -> None:
    """Which sampler, how many steps: the exact errors of all reverse kernels on the Gaussian of an EXPERIMENT's data."""
    from gaussian_test.experiment import Experiment
    from gaussian_test.sampler_study import samplers as study_samplers
    from gaussian_test.sampler_study import samplers_text

    settings = Experiment.load(experiment, changes)
    counts = [part.strip() for part in steps.split(",")]
    if not all(part.isdecimal() for part in counts):
        raise UserError(f"--steps {steps!r} is no list of whole numbers: write for example 8,16,32")
    study = study_samplers(settings, [int(part) for part in counts])
    click.echo(samplers_text(study))
    if folder is not None:
        from gaussian_test.analysis import figure_parts, sampler_figures
        from gaussian_test.errors import user_input

        with user_input():
            figure_parts.save({"samplers": sampler_figures.sampler_figure(study)}, folder)
        click.echo(f"figure: {folder / 'samplers'}.png, .pdf")


if __name__ == "__main__":
    main()
