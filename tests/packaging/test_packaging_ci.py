"""The script of CI: it has all that it needs, installs a browser where it may, and goes on without one, saying so."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def ci(folder, **programs):
    """Run it with nothing on the path but a shell and some programs that only say that they were called; return what was said."""
    for name in ("bash", "env", "dirname"):
        (folder / name).symlink_to(shutil.which(name))
    for name, body in ({"make": "exit 0", "id": "echo 0"} | programs).items():
        path = folder / name.replace("_", "-")
        path.write_text(f'#!{shutil.which("bash")}\necho "{path.name} $*" >> {folder}/calls\n{body}\n')
        path.chmod(0o755)
    done = subprocess.run([ROOT / ".ci" / "run"], capture_output=True, text=True, check=False, env={"PATH": str(folder)})
    return done, [line for line in (folder / "calls").read_text().splitlines() if not line.startswith("id")]


ALL = ["make lint", "make test"]
UPDATE, INSTALL = "apt-get -qq update", "apt-get -qq install -y --no-install-recommends chromium"


@pytest.mark.parametrize(
    ("programs", "calls", "said"),
    [
        ({"chromium": "exit 0", "apt_get": "exit 0"}, ALL, ""),
        ({"google_chrome": "exit 0", "apt_get": "exit 0"}, ALL, ""),
        ({"apt_get": "exit 0"}, [UPDATE, INSTALL, *ALL], ""),
        ({"apt_get": "echo noise; exit 100"}, [UPDATE, *ALL], "chromium could not be installed"),
        ({"apt_get": "exit 0", "id": "echo 1000"}, ALL, ""),
        ({}, ALL, ""),
    ],
    ids=["there already", "another one", "installed", "no network", "not root", "no apt-get"],
)
def test_a_browser_is_installed_where_it_can_be_and_never_stops_it(programs, calls, said, tmp_path):
    done, seen = ci(tmp_path, **programs)
    assert (done.returncode, done.stdout, seen) == (0, "", calls)
    assert said in done.stderr if said else done.stderr == ""


def test_what_fails_after_it_is_told(tmp_path):
    done, seen = ci(tmp_path, make="exit 2")
    assert (done.returncode, seen) == (2, ["make lint"])
