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
from click.testing import CliRunner

import gaussian_test as gt
from gaussian_test.cli.commands import main
from gaussian_test.engine import runner
from gaussian_test.store import archive, files
from gaussian_test.sweep import run as sweep_run

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
SMALL = [
    "--set",
    "samples=4",
    "--set",
    "turn_times.noise_to_signal=[0.1, 5]",
    "--set",
    "statistics.bootstrap=100",
    "--set",
    "observables=none",
]


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


def invoke(*arguments):
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# -- what is loaded ------------------------------------------------------------------------------------------------------------

LOADED = "; import sys; print(*sorted({'torch', 'xarray', 'pandas', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules)))"


def test_import_loads_nothing_heavy(tmp_path):
    assert python("import gaussian_test" + LOADED, tmp_path).split() == []


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["show", "-h"], ["--version"]])
def test_help_loads_nothing_heavy(arguments, tmp_path):
    code = (
        f"import sys; sys.argv = ['gaussian-test', *{arguments}]\n"
        "from gaussian_test.cli.commands import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('--')" + LOADED
    )
    output = python(code, tmp_path)
    assert len(output.split("--\n")[0]) > 10
    assert output.split("--\n")[-1].split() == []


def test_show_does_not_import_torch(disk, tmp_path):
    code = (
        "import sys; sys.argv = ['gaussian-test', 'show', " + repr(str(disk)) + "]\n"
        "from gaussian_test.cli.commands import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('torch' in sys.modules, 'xarray' in sys.modules)"
    )
    output = python(code, tmp_path).splitlines()
    assert output[0].startswith("Gaussian Test of digits")
    assert output[-1] == "False True"


def test_a_bad_experiment_is_refused_before_anything_heavy_is_loaded(tmp_path):
    code = (
        "import sys; sys.argv = ['gaussian-test', 'run', '--set', 'reverse.steps=0']\n"
        "from gaussian_test.cli.commands import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    assert python(code, tmp_path).split() == ["2", "False"]


def test_listing_the_package_gives_its_public_names(tmp_path):
    assert python("import gaussian_test as gt; print(dir(gt) == sorted(gt.__all__))" + LOADED, tmp_path).split() == ["True"]


@pytest.mark.parametrize("code", ["import gaussian_test, xarray", "import xarray, gaussian_test"])
def test_the_accessor_is_there_in_both_orders_of_import(code, tmp_path, disk):
    text = python(f"{code}\nd = xarray.open_dataset({str(disk)!r})\nprint(d.gaussian_test.show())", tmp_path)
    assert text.rstrip("\n") == gt.open_archive(disk).gaussian_test.show()


def test_a_function_is_a_function_whatever_was_imported_before(tmp_path):
    """A module of the name of a public function must not take its place (a doctest, a debugger or a colleague imports it)."""
    code = (
        "import gaussian_test as gt, gaussian_test.result.text, importlib\n"
        "for name in ('compare', 'run', 'experiment', 'archive', 'command_line'):\n"
        "    try: importlib.import_module('gaussian_test.' + name)\n"
        "    except ModuleNotFoundError: pass\n"
        "print(*(type(getattr(gt, name)).__name__ for name in ('run', 'compare', 'open_archive')))"
    )
    assert python(code, tmp_path).split() == ["function"] * 3


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="ran"):
        gt.ran  # noqa: B018


# -- what works ----------------------------------------------------------------------------------------------------------------


LINE = re.compile(
    r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ level=info event=(start|shard|statistics|archive)( [a-z_]+=([^\s\"=]+|\"[^\"]*\"))*"
)


def test_a_run_says_its_result_and_on_stderr_how_it_goes(tmp_path):
    done = command("run", "-o", "a.nc", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    events = [LINE.fullmatch(line)[1] for line in done.stderr.splitlines()]
    assert events == ["start", *["shard"] * (len(events) - 3), "statistics", "archive"]
    assert all(f" {key}=" in done.stderr.splitlines()[1] for key in ("shard", "done", "of", "seconds", "remaining_seconds"))
    result = gt.open_archive(tmp_path / "a.nc")
    device = f"device: {result.attrs['device']}, taken by --device auto"
    lines = done.stdout.removeprefix(f"{result.gaussian_test.show()}\n\narchive: a.nc\n").splitlines()
    assert [line.split(":")[:2] for line in lines[:-1]] == [device.split(":")]
    assert lines[-1].startswith("next: gaussian-test show a.nc --all | gaussian-test plot a.nc -o a_figures")
    assert os.listdir(tmp_path) == ["a.nc"]


def test_the_progress_bar_shows_on_a_terminal(tmp_path, monkeypatch, capsys):
    """The other side of its silence: on a terminal there is one."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    settings = {"samples": 4, "turn_times": {"noise_to_signal": [0.1, 5.0]}, "keep": {"pictures": 0}}
    gt.run(settings)
    assert "U-Turns" in capsys.readouterr().err
    gt.run(settings, progress=False)
    assert capsys.readouterr().err == ""


def test_show_prints_what_python_shows(disk):
    shown = invoke("show", disk)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.output == gt.open_archive(disk).gaussian_test.show() + "\n"


def test_show_into_head_ends_quietly(disk, tmp_path):
    """The reader closes the pipe before the first line: the writer must meet the broken pipe, and keep still."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "gaussian_test", "show", disk],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    writer.stdout.close()
    error = writer.stderr.read()
    writer.stderr.close()
    assert (writer.wait(60), error) == (0, "")
    shell = f"{sys.executable} -m gaussian_test show {disk} | head -n 1; echo ${{PIPESTATUS[0]}}"
    piped = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert piped.stderr == ""
    assert piped.stdout.splitlines()[0].startswith("Gaussian Test of digits")
    assert piped.stdout.splitlines()[1] == "0"


def test_plot_writes_whole_png_and_pdf(disk, tmp_path):
    folder = tmp_path / "some" / "figures"
    done = invoke("plot", disk, "-o", folder)
    assert (done.exit_code, done.stderr) == (0, "")
    names = {"autocorrelation", "gap", "times", "end_points", "sample_times", "pictures_empirical", "pictures_gaussian"}
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}
    for path in folder.iterdir():
        content = path.read_bytes()
        assert len(content) > 1000
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
            assert content.rstrip().endswith(b"IEND\xaeB`\x82")
        else:
            assert content.startswith(b"%PDF-")
            assert content.rstrip().endswith(b"%%EOF")
    assert len(done.output.splitlines()) == len(names)
    assert all(name in done.output for name in names)


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


def test_overwrite_and_resume_do_what_they_say(tmp_path):
    path = tmp_path / "a.nc"
    assert invoke("run", "-o", path, *SMALL).exit_code == 0
    first = path.read_bytes()
    assert invoke("run", "-o", path, *SMALL, "--resume").exit_code == 0
    assert path.read_bytes() == first
    assert invoke("run", "-o", path, *SMALL, "--overwrite", "--set", "seed=9").exit_code == 0
    assert gt.open_archive(path).attrs["seed"] == 9
    assert os.listdir(tmp_path) == ["a.nc"]


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
    outcome = CliRunner().invoke(main, [command, str(tmp_path / "e.yaml"), "-o", str(tmp_path / "out"), *given])
    assert (outcome.exit_code, outcome.stderr) == (2, "gaussian-test: seen\n")
    wanted = {"device": "cpu", "trust": {"a.pkl": "12", "b.pkl": "34"}, "workers": 2, "scheduler": "here", "threads": 3}
    wanted |= {"resume": True, "overwrite": True}
    assert seen == [(tmp_path / "out", wanted | {"progress": None})]
    CliRunner().invoke(main, [command, str(tmp_path / "e.yaml"), "-o", str(tmp_path / "out"), *given, "--quiet"])
    assert seen[1:] == [(tmp_path / "out", wanted | {"progress": False})]


def test_run_draws_where_asked(tmp_path):
    done = invoke("run", "-o", tmp_path / "a.nc", *SMALL, "--set", "keep.pictures=0", "--plot", tmp_path / "figures")
    assert done.exit_code == 0
    assert len(list((tmp_path / "figures").iterdir())) == 10


# -- what is refused -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def room(disk, tmp_path, monkeypatch):
    """A folder with everything that can be given by mistake; the current one."""
    monkeypatch.chdir(tmp_path)
    bad = np.zeros((8, 3), dtype=np.float32)
    bad[0, 0], bad[1, 1] = np.nan, 1
    np.save("nan.npy", bad)
    Path("broken.yaml").write_text("samples: [4\nseed: 1\n")
    Path("date.yaml").write_text("seed: 2020-13-45\n")
    Path("list.yaml").write_text("- samples\n")
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
    "bad value": (["run", "--set", "samples=few"], "few"),
    "bad --set": (["run", "--set", "samples"], "samples"),
    "turn time outside the process": (["run", "--set", "turn_times.time=[1000]"], "1000"),
    "noise to signal outside the process": (["run", "--set", "turn_times.noise_to_signal=[1000]"], "1000"),
    "negative sigma": (["run", "--set", "process.sigma_min=-1"], "process.sigma_min"),
    "no steps": (["run", "--set", "reverse.steps=0"], "reverse.steps"),
    "too many samples": (["run", "--set", "samples=5000"], "5000"),
    "no such device": (["run", "--device", "cuda:9"], "cuda:9"),
    "unknown device": (["run", "--device", "tpu"], "tpu"),
    "NaN in the data": (["run", "--set", "data={source: file, path: nan.npy}", "--set", "samples=4"], "NaN"),
    "no such data": (["run", "--set", "data={source: file, path: none.npy}"], "none.npy"),
    "missing YAML": (["run", "none.yaml"], "none.yaml"),
    "broken YAML": (["run", "broken.yaml"], "broken.yaml"),
    "YAML with an impossible date": (["run", "date.yaml"], "date.yaml"),
    "YAML of a list": (["run", "list.yaml"], "list.yaml"),
    "output exists": (["run", "-o", "exists.nc"], "--overwrite"),
    "output folder missing": (["run", "-o", "none/a.nc"], "none"),
    "output is a folder": (["run", "-o", "."], "folder"),
    "resume and overwrite": (["run", "--resume", "--overwrite"], "exclude"),
    "resume over what is no archive": (["run", "-o", "exists.nc", "--resume"], "exists.nc"),
    "seed beyond the archive": (["run", *SMALL, "--set", "seed=99999999999999999999"], "seed"),
    "show no file": (["show", "none.nc"], "none.nc"),
    "show no archive": (["show", "text.nc"], "text.nc"),
    "show a folder": (["show", "."], "folder"),
    "show half an archive": (["show", "half.nc"], "half.nc"),
    "show a newer archive": (["show", "newer.nc"], "newer than the 2"),
    "plot no archive": (["plot", "text.nc", "-o", "f"], "text.nc"),
    "plot a newer archive": (["plot", "newer.nc", "-o", "f"], "newer than the 2"),
    "plot into a file": (["plot", "good.nc", "-o", "figures"], "figures"),
    "plot spoilt pictures": (["plot", "spoilt.nc", "-o", "f"], "spoilt.nc"),
    "compare with no archive": (["compare", "good.nc", "text.nc"], "text.nc"),
    "compare with a newer archive": (["compare", "newer.nc", "good.nc"], "newer than the 2"),
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


@pytest.mark.parametrize("case", ["unknown key", "NaN in the data", "show half an archive"])
def test_a_mistake_looks_the_same_from_a_shell(case, room):
    arguments, said = REFUSED[case]
    before = sorted(os.listdir(room))
    done = command(*arguments, cwd=room)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(room)) == before


@pytest.mark.parametrize("arguments", [["run", "--resum"], ["shwo"], ["show"], ["plot", "a.nc"], ["compare", "a.nc"]])
def test_a_mistyped_command_is_exit_code_2(arguments, room):
    done = command(*arguments, cwd=room)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("gaussian-test: ")
    assert line.endswith(" --help")


def test_the_experiment_of_an_archive_runs_again(disk, tmp_path):
    """What an archive says of itself is an experiment file."""
    path = tmp_path / "again.yaml"
    path.write_text(gt.open_archive(disk).attrs["experiment"])
    assert invoke("run", path, "-o", tmp_path / "again.nc").exit_code == 0
    first, again = gt.open_archive(disk), gt.open_archive(tmp_path / "again.nc")
    assert again.drop_attrs(deep=False).identical(first.drop_attrs(deep=False))
    assert yaml.safe_load(again.attrs["experiment"]) == yaml.safe_load(first.attrs["experiment"])
