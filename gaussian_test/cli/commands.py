"""The command line, ``gaussian-test run|sweep|status|show|plot|...``; each command imports what it needs."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from gaussian_test._version import __version__
from gaussian_test.cli import completion
from gaussian_test.cli.group import PlainErrors, importing, next_commands, quiet_option, reporting
from gaussian_test.errors import UserError, lacking

PATH, FOLDER = click.Path(path_type=Path), click.Path(path_type=Path, file_okay=False)
ARCHIVE, EXPERIMENT = completion.File(".nc"), completion.File(".yaml", ".yml")


@click.group(
    cls=PlainErrors,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: gaussian-test run -o run.nc",
)
@click.version_option(__version__, prog_name="gaussian-test")
def main() -> None:
    """Is the score affine, when is a sample forgotten, when does its class change: the Gaussian Test by U-Turn diffusion."""


def set_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that changes keys of an experiment."""
    return click.option(
        "--set",
        "changes",
        multiple=True,
        metavar="KEY=VALUE",
        shell_complete=completion.changes,
        help="Change a key of the experiment (repeatable).",
    )(command)


def device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that says where to compute."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda[:i]",
        shell_complete=completion.devices,
        help="Where to compute.",
    )(command)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that a run and a sweep have in common: what is changed, trusted and replaced, and who computes the shards."""
    for option in reversed(
        (
            set_option,
            device_option,
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
            quiet_option,
        )
    ):
        command = option(command)
    return command


def folder_option(help_text: str, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option that names the folder to write to."""
    return click.option("-o", "--output", "folder", type=FOLDER, required=required, help=help_text)


# -- runs ----------------------------------------------------------------------------------------------------------------------


@main.command(epilog="Example: gaussian-test run -o run.nc --set samples=all --set reverse.steps=32")
@click.argument("experiment", required=False, type=EXPERIMENT)
@click.option("-o", "--output", type=ARCHIVE, default=Path("run.nc"), show_default=True, help="Archive to write.")
@run_options
@click.option("--plot", "folder", type=FOLDER, help="Also draw the figures into this folder.")
def run(experiment: Path | None, output: Path, changes: tuple[str, ...], folder: Path | None, quiet: bool, **options: Any) -> None:
    """Run an EXPERIMENT (a YAML file; default: the Gaussian Test of the embedded digits) and write its archive."""
    from gaussian_test.experiment.experiment import Experiment

    settings = Experiment.load(experiment, changes)  # refused before anything heavy is loaded
    with importing():
        from gaussian_test.engine.runner import run as run_experiment

    with reporting(quiet):
        result = run_experiment(settings, output, progress=False if quiet else None, **options)
    if not quiet:
        click.echo(f"{result.gaussian_test.show()}\n\narchive: {output}")
        if options["device"] == "auto":
            taken = result.attrs["device"]
            click.echo(f"device: {taken}, taken by --device auto" + (": no CUDA device was found" if taken == "cpu" else ""))
    if folder is not None:
        _plot(result, folder, quiet)
    if not quiet:
        path, stem = str(output), str(output.with_suffix(""))
        following = [["show", path, "--all"], ["plot", path, "-o", f"{stem}_figures"], ["report", path, "-o", f"{stem}.html"]]
        known = [command for command in following if command[0] in main.commands and not (folder and command[0] == "plot")]
        click.echo(next_commands(*known))


@main.command(epilog="Example: gaussian-test sweep sweep.yaml -o results --workers 4")
@click.argument("sweep", type=EXPERIMENT)
@folder_option("Folder for the archives.")
@run_options
def sweep(sweep: Path, folder: Path, changes: tuple[str, ...], quiet: bool, **options: Any) -> None:
    """Run every experiment of a SWEEP, a YAML file in which the key 'sweep' maps keys to lists of values."""
    from gaussian_test.sweep.sweep import Sweep

    chosen = Sweep.load(sweep, changes)
    with importing():
        from gaussian_test.sweep.run import run_sweep
    from gaussian_test.sweep.states import status, status_text

    with reporting(quiet):
        archives = run_sweep(chosen, folder, progress=False if quiet else None, **options)
    if not quiet:
        click.echo(status_text(status(folder)))
        following = [["show", str(path)] for path in archives[:1]]
        following += [["compare", *map(str, archives[:2])]] if len(archives) > 1 else []
        click.echo(next_commands(*following))


@main.command(name="status", epilog="Example: gaussian-test status results")
@click.argument("folder", type=ARCHIVE)
def show_status(folder: Path) -> None:
    """Say what has become of the runs in a FOLDER (or of the run of one archive): finished, running, interrupted, failed."""
    from gaussian_test.sweep.states import status, status_text

    found = status(folder)
    click.echo(status_text(found))
    if any(run.state in ("interrupted", "failed") for run in found):
        click.echo("next: the command that made them, with --resume")


# -- results -------------------------------------------------------------------------------------------------------------------


def _of_archives(*paths: Path) -> AbstractContextManager[None]:
    names = " or ".join(map(str, paths)).replace("{", "{{").replace("}", "}}")
    return lacking(f"{names} lacks {{}}, which 'gaussian-test run' writes: run again")


@main.command(epilog="Example: gaussian-test show run.nc --json")
@click.argument("archive", type=ARCHIVE)
@click.option("--all", "every", is_flag=True, help="Show the observables at every turn time.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print all of it as JSON, every number with all its digits: NaN as null, infinity as the text Infinity. "
    "Keys: format, scores (times, largest_gap, curves, values), curves, values, coordinates, chains, run, data, experiment, "
    "versions, digests, origins, networks.",
)
def show(archive: Path, every: bool, as_json: bool) -> None:
    """Print the times, the test and the observables of an ARCHIVE as tables, or as JSON."""
    with importing():
        from gaussian_test.store.archive import open_archive

    with _of_archives(archive):
        result = open_archive(archive).gaussian_test
        click.echo(result.to_json() if as_json else result.show(every))


@main.command(epilog="Example: gaussian-test plot run.nc -o figures")
@click.argument("archive", type=ARCHIVE)
@folder_option("Folder for the figures.")
@click.option("--pdf", is_flag=True, help="Write each figure as PDF as well.")
@quiet_option
def plot(archive: Path, folder: Path, pdf: bool, quiet: bool) -> None:
    """Draw the figures of an ARCHIVE as PNG."""
    with importing():
        from gaussian_test.store.archive import open_archive

    with _of_archives(archive):
        _plot(open_archive(archive), folder, quiet, pdf)


def _plot(result: object, folder: Path, quiet: bool, pdf: bool = False) -> None:
    from gaussian_test.errors import user_input

    with user_input():
        folder.mkdir(parents=True, exist_ok=True)
    for name in result.gaussian_test.plot(folder, pdf):  # type: ignore[attr-defined] # an accessor, registered at run time
        if not quiet:
            click.echo(f"figure: {folder / name}.png{', .pdf' if pdf else ''}")


@main.command(epilog="Example: gaussian-test compare empirical.nc mixture.nc")
@click.argument("a", type=ARCHIVE)
@click.argument("b", type=ARCHIVE)
def compare(a: Path, b: Path) -> None:
    """Compare two archives, A and B: times and curves, b - a, with bands (of paired differences where they share samples)."""
    with importing():
        from gaussian_test.result.comparison import compare as compare_results
    from gaussian_test.result.text import compare_text

    with _of_archives(a, b):
        click.echo(compare_text(compare_results(a, b), (str(a), str(b))))


@main.command(epilog="Example: gaussian-test report run.nc -o run.html")
@click.argument("sources", nargs=-1, required=True, metavar="RUN.nc [OTHER.nc] | FOLDER", type=ARCHIVE)
@click.option("-o", "--output", type=PATH, help="Page to write, or to replace.  [default: named after the first archive]")
@quiet_option
def report(sources: tuple[Path, ...], output: Path | None, quiet: bool) -> None:
    """Write one page of HTML, which loads nothing from anywhere: of a run, of two compared, or of the runs in a folder."""
    with importing():
        from gaussian_test.html_report.page import report as write_report

    first = sources[0].name.removesuffix(".nc") or "report"
    with _of_archives(*sources):
        page = write_report(sources, output or Path(f"{first}.html"))
    if not quiet:
        click.echo(f"report: {page}")


@main.command(epilog="Example: gaussian-test export run.nc -o run.zarr")
@click.argument("archive", type=ARCHIVE)
@click.option("-o", "--output", type=PATH, required=True, help="Folder to write; its name ends in .zarr.")
@quiet_option
def export(archive: Path, output: Path, quiet: bool) -> None:
    """Write an ARCHIVE as zarr, for object stores."""
    with importing():
        from gaussian_test.result.export import export as write_zarr

    written = write_zarr(archive, output)
    if not quiet:
        click.echo(f"zarr: {written}")


# -- before a run --------------------------------------------------------------------------------------------------------------


@main.command(epilog="Example: gaussian-test samplers --steps 8,16,32,64 -o figures")
@click.argument("experiment", required=False, type=EXPERIMENT)
@set_option
@click.option("--steps", default="4,8,16,32,64,128,256", show_default=True, help="Numbers of reverse steps.")
@folder_option("Folder for the figure.", required=False)
def samplers(experiment: Path | None, changes: tuple[str, ...], steps: str, folder: Path | None) -> None:
    """Which sampler, how many steps: the exact errors of all reverse kernels on the Gaussian of an EXPERIMENT's data."""
    from gaussian_test.experiment.experiment import Experiment

    with importing():
        from gaussian_test.result.sampler_study import samplers as study_samplers, samplers_text

    settings = Experiment.load(experiment, changes)
    counts = [part.strip() for part in steps.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in counts):
        raise UserError(f"--steps {steps[:60]!r} is no list of whole numbers: write for example 8,16,32")
    study = study_samplers(settings, [int(part) for part in counts])
    click.echo(samplers_text(study))
    if folder is not None:
        from gaussian_test.analysis.figures import overview, parts
        from gaussian_test.errors import user_input

        with user_input():
            parts.save({"samplers": overview.sampler_figure(study)}, folder)
        click.echo(f"figure: {folder / 'samplers'}.png")


@main.command(epilog="Example: gaussian-test doctor experiment.yaml --device cuda")
@click.argument("experiment", required=False, type=EXPERIMENT)
@set_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.pass_context
def doctor(ctx: click.Context, experiment: Path | None, changes: tuple[str, ...], device: str, as_json: bool) -> None:
    """Look whether this machine can run an EXPERIMENT (default: the digits with all three scores), and about how long it takes.

    Versions, extras, device, threads, memory, the current folder, and the time of a call of each score. What is wrong is said
    with what to do about it, and the exit code is 1; an extra that is absent is nothing wrong unless the experiment needs it.
    """
    from gaussian_test.cli.doctor import as_json as found_as_json, as_text, diagnose

    found = diagnose(experiment, changes, device)
    click.echo(found_as_json(found) if as_json else as_text(found))
    ctx.exit(int(any(check.state == "problem" for check in found)))


@main.command(epilog="Example: gaussian-test convert network.pkl --trust SHA256")
@click.argument("file", type=completion.File(".pkl"))
@click.option("--trust", "sha256", required=True, metavar="SHA256", help="The sha256 of the file, from whoever made it.")
@click.option("-o", "--output", type=PATH, help="Safetensors file to write.  [default: named after FILE]")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
def convert(file: Path, sha256: str, output: Path | None, overwrite: bool) -> None:
    """Open a trusted pickle of an EDM network once, and write safetensors and an experiment that need no trust."""
    with importing():
        from gaussian_test.build.convert import convert as convert_file

    experiment = convert_file(file, sha256, output, overwrite)
    click.echo(f"weights: {experiment.with_suffix('.safetensors')}\nexperiment: {experiment}")
    click.echo(next_commands(["doctor", str(experiment)], ["run", str(experiment), "--set", "data.path=DATA"]))


@main.command(name="completion", epilog="Example: gaussian-test completion bash")
@click.argument("shell", type=click.Choice(list(completion.SHELLS)))
def shell_completion(shell: str) -> None:
    """Print the script with which the Tab key completes commands, options, archives, devices and keys in a SHELL.

    \b
    bash  add to ~/.bashrc:    eval "$(gaussian-test completion bash)"
    zsh   add to ~/.zshrc:     eval "$(gaussian-test completion zsh)"
    fish  once:                gaussian-test completion fish > ~/.config/fish/completions/gaussian-test.fish
    """  # noqa: D301 # click looks for the character itself
    click.echo(completion.script(main, shell))


if __name__ == "__main__":
    main()
