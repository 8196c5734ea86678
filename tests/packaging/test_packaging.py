"""What is shipped: a wheel with real folders, an sdist that builds the same wheel, an installation that no file can shadow."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("sampler", "analysis", "data")
OUTAGE = ("connection", "resolve", "timed out", "network is unreachable", "no matching distribution", "could not find a version")
# nothing of this project's checkout, nor of the interpreter that runs the tests, may help
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"} | {"OMP_NUM_THREADS": "1"}


def call(*command, cwd, check=True, index=False):
    """Run a command; where it asks the package index, skip if there is none to ask."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False, env=CLEAN)
    if check and done.returncode:
        if index and any(word in (done.stdout + done.stderr).lower() for word in OUTAGE):
            last = (done.stderr or done.stdout).strip().splitlines()[-1]
            pytest.skip(f"the package index cannot be reached or lacks a package: {last}")
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Return a copy of the tracked files only, links kept as links."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: the tracked files are not known")
    folder = tmp_path_factory.mktemp("checkout")
    names = call("git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", cwd=ROOT).stdout.split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, folder / name
        if source.is_symlink() or source.exists():  # a tracked file may be deleted in a working tree
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    for room in ROOMS:
        assert (folder / "gaussian_test" / room).is_symlink()
    return folder


@pytest.fixture(scope="module")
def built(checkout, tmp_path_factory):
    """Return the sdist, the wheel built from it (what `python -m build` does), and the wheel built from the checkout."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--outdir", out / "both", checkout, cwd=checkout, index=True)
    call(sys.executable, "-m", "build", "--wheel", "--outdir", out / "direct", checkout, cwd=checkout, index=True)
    found = [list(out.glob(pattern)) for pattern in ("both/*.tar.gz", "both/*.whl", "direct/*.whl")]
    assert [len(files) for files in found] == [1, 1, 1]
    return [files[0] for files in found]


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.getinfo(name).CRC for name in archive.namelist()}


def test_the_wheel_holds_the_package_as_real_files_and_nothing_else(built, checkout):
    _, wheel, _ = built
    found = set(names(wheel))
    own = [path for path in (checkout / "gaussian_test").rglob("*") if path.is_file()]  # rglob does not follow links
    expected = {str(path.relative_to(checkout)) for path in own}
    assert "gaussian_test/py.typed" in expected
    for room in ROOMS:
        files = [path for path in (checkout / room).rglob("*") if path.is_file()]
        assert len(files) > 3
        expected |= {f"gaussian_test/{room}/{path.relative_to(checkout / room)}" for path in files}
    metadata = {name for name in found if name.split("/")[0].endswith(".dist-info")}
    assert found - metadata == expected
    assert any(name.endswith("entry_points.txt") for name in metadata)
    assert any("LICENSE" in name for name in metadata)
    with zipfile.ZipFile(wheel) as archive:
        links = [info.filename for info in archive.infolist() if (info.external_attr >> 16) & 0o170000 == 0o120000]
        assert links == []
        for room in ROOMS:
            assert archive.read(f"gaussian_test/{room}/__init__.py") == (checkout / room / "__init__.py").read_bytes()


def test_the_sdist_builds_the_wheel_of_the_checkout(built):
    sdist, wheel, direct = built
    first, second = ({item for item in names(each).items() if not item[0].endswith("/RECORD")} for each in (wheel, direct))
    assert first == second
    with tarfile.open(sdist) as archive:
        links = [member.linkname for member in archive if member.issym()]
    assert not [link for link in links if link.startswith("/") or "/.." in link]


def test_twine_accepts_both(built):
    done = call(sys.executable, "-m", "twine", "check", "--strict", *built[:2], cwd=ROOT, check=False)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout + done.stderr


def test_the_index_would_render_the_readme(built):
    """As PyPI does it: with its own renderer, to which twine does not give Markdown."""
    from readme_renderer import markdown

    with zipfile.ZipFile(built[1]) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"].startswith("text/markdown")
    text = metadata.get_payload(decode=True).decode()
    assert text.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    page = markdown.render(text)
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert page.count("<h2") == len(re.findall(r"^## ", outside, flags=re.MULTILINE))
    assert page.count("<table") == len(re.findall(r"^\| ?---", outside, flags=re.MULTILINE)) > 0
    assert page.count("<img") == len(re.findall(r"!\[", outside)) > 0
    assert "```" not in page


def test_what_the_readme_links_to_is_in_the_sdist(built):
    """On the index relative links lead nowhere, as long as there is no public address to complete them: here is what they mean."""
    with tarfile.open(built[0]) as archive:
        shipped = {member.name.partition("/")[2] for member in archive}
    links = set(re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(links) > 3
    assert links <= shipped
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE"} <= shipped


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Return the programs folder of a fresh environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    programs = folder / "venv" / "bin"
    constraints = ROOT / "constraints.txt"
    if not constraints.exists():
        pytest.skip("constraints.txt is missing: the versions to install are not known")
    install = ("install", "-q", "--no-compile", "-c", constraints, built[1])
    call(programs / "python", "-m", "pip", *install, cwd=folder, index=True)
    return programs


def test_the_installation_is_consistent(installed, tmp_path):
    done = call(installed / "python", "-m", "pip", "check", cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout


def test_the_doctor_finds_all_well_in_it_and_says_how_the_extras_come(installed, tmp_path):
    """The runtime dependencies alone: no extra is there, and nothing is wrong."""
    done = call(installed / "gaussian-test", "doctor", "--device", "cpu", "--json", cwd=tmp_path)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    for extra in ("cluster", "slurm", "diffusers", "azula", "docs"):
        assert checks[f"extra {extra}"]["state"] == "absent"
        assert checks[f"extra {extra}"]["advice"] == f"pip install 'gaussian-test[{extra}]'"
    assert checks["score network"]["state"] == "ok"


@pytest.fixture
def shadowed(tmp_path):
    """A user's folder with files of our rooms' names that must never be imported."""
    for name in ("analysis.py", "sampler.py", "data/__init__.py", "data/loading.py", "archive.py", "run.py", "experiment.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise RuntimeError('the user\\'s own {name} was imported')\n")
    return tmp_path


def test_it_runs_beside_the_users_own_analysis_sampler_and_data(installed, shadowed):
    before = sorted(path.name for path in shadowed.iterdir())
    settings = "samples=8 turn_times.noise_to_signal=[0.1,1,5] shard_size=4 statistics.bootstrap=100 keep.pictures=1"
    options = [word for setting in settings.split() for word in ("--set", setting)]
    done = call(installed / "gaussian-test", "run", "-o", "run.nc", *options, cwd=shadowed)
    assert all(line.startswith("time=") for line in done.stderr.splitlines())
    assert done.stdout.startswith("Gaussian Test of digits of 8 x 8 pixels (scikit-learn): 8 of 1797 samples x 3 turn times")
    assert sorted(path.name for path in shadowed.iterdir()) == sorted([*before, "run.nc"])
    shown = call(installed / "gaussian-test", "show", "run.nc", cwd=shadowed).stdout
    assert done.stdout.startswith(shown)


def test_the_rooms_are_imported_from_the_installation(installed, shadowed):
    # `python -c` puts the current folder first: the case in which a user's files would win
    code = (
        "import gaussian_test, gaussian_test.data, gaussian_test.sampler, gaussian_test.analysis, xarray, sys\n"
        "print(gaussian_test.__file__)\n"
        "for room in ('data', 'sampler', 'analysis'): print(getattr(gaussian_test, room).__file__)\n"
        "print(gaussian_test.data.load('digits').sizes['sample'], gaussian_test.run.__name__)\n"
        "import importlib.metadata as m; print(m.version('gaussian-test') == gaussian_test.__version__)\n"
        "assert not {'data', 'sampler', 'analysis'} & set(sys.modules)\n"
    )
    lines = call(installed / "python", "-c", code, cwd=shadowed).stdout.splitlines()
    home = str(installed.parent / "lib")
    assert all(line.startswith(home) and "site-packages/gaussian_test/" in line for line in lines[:4])
    assert lines[4:] == ["1797 run", "True"]
