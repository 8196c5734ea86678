"""The command line: light to start, one sentence and exit code 2 for every mistake, nothing left behind, silent when it works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import yaml
from face_zoo import invoke

import gaussian_test as gt
from gaussian_test.cli import completion
from gaussian_test.engine import runner
from gaussian_test.store import archive, files
from gaussian_test.sweep import run as sweep_run

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


def python(code, cwd):
    """Return what a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(*arguments, cwd):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gaussian_test", *arguments], cwd=cwd, capture_output=True, text=True, check=False, env=ENVIRONMENT
    )


# -- what is loaded ------------------------------------------------------------------------------------------------------------


def test_what_shows_help_settings_and_mistakes_loads_nothing_heavy(tmp_path):
    """Nor does the Tab key. Every line but the last three is printed by click before anything heavy could be."""
    code = f"""if True:
        import os, sys
        sys.modules["dask"] = sys.modules["dask.array"] = None  # xarray itself loads scipy where dask is installed
        heavy = {{"torch", "xarray", "pandas", "matplotlib", "scipy", "sklearn"}}
        import gaussian_test
        from gaussian_test.cli.commands import main
        public = dir(gaussian_test) == sorted(gaussian_test.__all__)
        codes = []
        for arguments in ("--help", "run --help", "show -h", "--version", "run --set reverse.steps=0", "TAB"):
            if arguments == "TAB":  # the keys of --set need the settings, and nothing of what computes
                os.environ |= {{"{completion.VARIABLE}": "bash_complete", "COMP_WORDS": "gaussian-test run --set reverse.st"}}
            sys.argv = ["gaussian-test", *arguments.split()]
            try: main()
            except SystemExit as end: codes.append(end.code)
            assert not heavy & set(sys.modules), arguments
        import gaussian_test.sampler.kernels, gaussian_test.experiment.experiment
        assert not heavy & set(sys.modules), "settings"
        import gaussian_test.result.text, gaussian_test.result.json_view, gaussian_test.analysis.observables.registry
        print(public, *codes, *sorted((heavy - {{"xarray", "pandas"}}) & set(sys.modules)))
    """
    assert python(code, tmp_path).splitlines()[-2:] == ["plain,reverse.steps=", "True 0 0 0 0 2 0"]
    mistake = command("run", "--set", "reverse.steps=0", cwd=tmp_path)
    assert (mistake.returncode, mistake.stdout, len(mistake.stderr.splitlines())) == (2, "", 1)


def test_show_does_not_import_torch_and_the_accessor_comes_before_xarray(disk, tmp_path):
    code = f"""if True:
        import gaussian_test, sys
        from gaussian_test.cli.commands import main
        sys.argv = ["gaussian-test", "show", {str(disk)!r}]
        try: main()
        except SystemExit as end: assert not end.code
        print("torch" in sys.modules)
        import xarray
        print(xarray.open_dataset({str(disk)!r}).gaussian_test.show())
    """
    text = gt.open_archive(disk).gaussian_test.show()
    assert python(code, tmp_path) == f"{text}\nFalse\n{text}\n"


def test_the_accessor_comes_after_xarray_and_a_function_is_a_function_whatever_was_imported(disk, tmp_path):
    """A module of the name of a public function must not take its place (a doctest, a debugger or a colleague imports it)."""
    code = f"""if True:
        import xarray, gaussian_test as gt, gaussian_test.result.text, importlib
        print(xarray.open_dataset({str(disk)!r}).gaussian_test.show())
        for name in ("compare", "run", "experiment", "archive", "command_line"):
            try: importlib.import_module("gaussian_test." + name)
            except ModuleNotFoundError: pass
        print(*(type(getattr(gt, name)).__name__ for name in ("run", "compare", "open_archive")))
    """
    assert python(code, tmp_path) == f"{gt.open_archive(disk).gaussian_test.show()}\nfunction function function\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="ran"):
        gt.ran  # noqa: B018


# -- what works ----------------------------------------------------------------------------------------------------------------


LINE = re.compile(
    r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ level=info event=(start|shard|statistics|archive)( [a-z_]+=([^\s\"=]+|\"[^\"]*\"))*"
)


def test_a_run_says_its_result_and_on_stderr_how_it_goes(disk, tiny, tmp_path):
    """And its archive is that of the same run from python, all groups of it."""
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(tiny(seed=99)))
    done = command("run", "e.yaml", "-o", "a.nc", "--set", "seed=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    events = [LINE.fullmatch(line)[1] for line in done.stderr.splitlines()]
    assert events == ["start", *["shard"] * 3, "statistics", "archive"]
    assert all(f" {key}=" in done.stderr.splitlines()[1] for key in ("shard", "done", "of", "seconds", "remaining_seconds"))
    result, ours = gt.open_archive(tmp_path / "a.nc"), gt.open_archive(disk)
    device = f"device: {result.attrs['device']}, taken by --device auto"
    lines = done.stdout.removeprefix(f"{result.gaussian_test.show()}\n\narchive: a.nc\n").splitlines()
    assert [line.split(":")[:2] for line in lines[:-1]] == [device.split(":")]
    assert lines[-1].startswith("next: gaussian-test show a.nc --all | gaussian-test plot a.nc -o a_figures")
    assert sorted(os.listdir(tmp_path)) == ["a.nc", "e.yaml"]
    assert result.assign_attrs(date_created="").identical(ours.assign_attrs(date_created=""))
    for name in ("moments", "pictures"):
        assert result.gaussian_test.group(name).identical(ours.gaussian_test.group(name))


def test_show_into_head_ends_quietly(disk):
    """The reader closes the pipe before the first line: the writer must meet the broken pipe, and keep still."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writer = subprocess.Popen([sys.executable, "-m", "gaussian_test", "show", disk], env=ENVIRONMENT, **streams)
    writer.stdout.close()
    error = writer.stderr.read()
    writer.stderr.close()
    assert (writer.wait(60), error) == (0, "")


def test_compare_with_itself_is_zero(disk):
    done = invoke("compare", disk, disk)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "paired: the same samples with the same noise" in done.output
    for curve in ("autocorrelation one shot", "memorized share", "class retention", "end square"):
        rows = [line for line in done.output.splitlines() if line.startswith(curve)]
        assert len(rows) == 2
        assert all("+0  [+0, +0]" in line and line.endswith("p = 1") for line in rows)
    for time in ("memorization", "speciation"):
        rows = [line for line in done.output.splitlines() if line.startswith(time)]
        assert len(rows) == 2
        assert all(line.endswith((" 0 [0, 0]", " -")) for line in rows)


@pytest.mark.parametrize(("command", "module", "function"), [("run", runner, "run"), ("sweep", sweep_run, "run_sweep")])
def test_a_run_and_a_sweep_hand_on_the_same_options(command, module, function, tmp_path, monkeypatch):
    seen = []

    def record(chosen, output, **options):
        seen.append((output, options))
        raise gt.UserError("seen")

    monkeypatch.setattr(module, function, record)
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({"sweep": {"seed": [1]}} if command == "sweep" else {}))
    given = ["--device", "cpu", "--trust", "a.pkl", "12", "--trust", "b.pkl", "34", "--workers", "2", "--scheduler", "here"]
    given += ["--threads", "3", "--resume", "--overwrite", "--set", "samples=8"]
    outcome = invoke(command, tmp_path / "e.yaml", "-o", tmp_path / "out", *given)
    assert (outcome.exit_code, outcome.stderr) == (2, "gaussian-test: seen\n")
    wanted = {"device": "cpu", "trust": {"a.pkl": "12", "b.pkl": "34"}, "workers": 2, "scheduler": "here", "threads": 3}
    wanted |= {"resume": True, "overwrite": True}
    assert seen == [(tmp_path / "out", wanted | {"progress": None})]
    invoke(command, tmp_path / "e.yaml", "-o", tmp_path / "out", *given, "--quiet")
    assert seen[1:] == [(tmp_path / "out", wanted | {"progress": False})]


# -- what is refused -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def room(disk, tmp_path, monkeypatch):
    """A folder with everything that can be given by mistake; the current one."""
    monkeypatch.chdir(tmp_path)
    bad = np.zeros((8, 3), dtype=np.float32)
    bad[0, 0], bad[1, 1] = np.nan, 1
    np.save("nan.npy", bad)
    Path("broken.yaml").write_text("samples: [4\nseed: 1\n")
    Path("text.nc").write_text("samples")
    Path("exists.nc").write_text("mine")
    Path("figures").write_text("a file where a folder is wanted")
    shutil.copy(disk, "good.nc")
    shutil.copy(disk, "newer.nc")
    with netCDF4.Dataset("newer.nc", "a") as file:
        file.schema_version = archive.SCHEMA_VERSION + 1
    content = Path("newer.nc").read_bytes()
    end = content.find(files.SEAL)
    Path("newer.nc").write_bytes(content if end < 0 else content[:end] + content[end + files.TRAILER :])
    files.seal(Path("newer.nc"))
    Path("half.nc").write_bytes(disk.read_bytes()[:9000])
    content = bytearray(disk.read_bytes())
    pictures = archive.read(disk, "pictures")["end"].values.tobytes()
    content[content.index(pictures[:64]) + 8] ^= 1
    Path("spoilt.nc").write_bytes(content)
    return tmp_path


REFUSED = {
    "unknown key": (["run", "--set", "sampels=4"], "sampels"),
    "turn time outside the process": (["run", "--set", "turn_times.time=[1e6]"], "1e+06"),
    "no such device": (["run", "--device", "cuda:9"], "cuda:9"),
    "NaN in the data": (["run", "--set", "data={source: file, path: nan.npy}", "--set", "samples=4"], "NaN"),
    "broken YAML": (["run", "broken.yaml"], "broken.yaml"),
    "output exists": (["run", "-o", "exists.nc"], "--overwrite"),
    "output folder missing": (["run", "-o", "none/a.nc"], "none"),
    "output is a folder": (["run", "-o", "."], "folder"),
    "resume and overwrite": (["run", "--resume", "--overwrite"], "exclude"),
    "resume over what is no archive": (["run", "-o", "exists.nc", "--resume"], "exists.nc"),
    "show no file": (["show", "none.nc"], "none.nc"),
    "show no archive": (["show", "text.nc"], "text.nc"),
    "show a folder": (["show", "."], "folder"),
    "show half an archive": (["show", "half.nc"], "half.nc"),
    "show a newer archive": (["show", "newer.nc"], "newer than the 3"),
    "plot into a file": (["plot", "good.nc", "-o", "figures"], "figures"),
    "plot spoilt pictures": (["plot", "spoilt.nc", "-o", "f"], "spoilt.nc"),
    "compare with no archive": (["compare", "good.nc", "text.nc"], "text.nc"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(case, room):
    arguments, said = REFUSED[case]
    before = {path.name: path.read_bytes() for path in room.iterdir()}
    done = invoke(*arguments)
    assert done.exit_code == 2, done.exception
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("gaussian-test: ")
    assert said in done.stderr
    after = {path.name: path.read_bytes() for path in room.iterdir() if path.is_file() or path.name != "f"}
    assert after == before
    assert not (room / "f").exists() or not list((room / "f").iterdir())


@pytest.mark.parametrize("arguments", [["run", "--resum"], ["shwo"], ["show"], ["plot", "a.nc"], ["compare", "a.nc"]])
def test_a_mistyped_command_is_exit_code_2(arguments):
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("gaussian-test: ")
    assert line.endswith(" --help")
