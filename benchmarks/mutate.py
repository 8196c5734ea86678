"""Break the product in 36 places, one at a time, and count the breaks that the tests catch: ``make mutate``.

Each break is one line that a colleague could get wrong: a square, a sign, an edge, a refusal, an exit code. It is made in a copy
of the tree, where the tests of its room run until the first failure. Options: numbers of breaks; none: all.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {  # which tests stand for a room, the quick ones first
    "sampler": "tests/sampler tests/theory tests/device tests/gaussian_test/test_face_conformance.py",
    "analysis": "tests/analysis tests/theory",
    "data": "tests/data",
    "gaussian_test/store": "tests/faults/test_faults_run.py tests/gaussian_test",
    "gaussian_test/engine": "tests/faults/test_faults_run.py tests/gaussian_test",
    "gaussian_test": "tests/gaussian_test",
}
BREAKS = [  # file, line, the line as it is broken
    ("sampler/reverse.py", "share = (process.noise_to_signal(s) / process.noise_to_signal(t)) ** 2", "** 2", "** 1"),
    ("sampler/reverse.py", "ahead = y + ((nu_s - nu_t) / 2) * (slope + slope_ahead)", "slope_ahead", "slope"),
    ("sampler/reverse.py", "x = amplitude * x + (deviation * self.S_noise) * noise.normal", " * self.S_noise", ""),
    ("sampler/processes.py", "return 2 * (ratio - 1)", "2 * ", ""),
    ("sampler/noise.py", "spawn_key=key if key[2] else key[:2]", "key if key[2] else key[:2]", "key[:2]"),
    ("sampler/scores/gaussian.py", "return -result / 2", " / 2", ""),
    ("sampler/scores/empirical.py", "None if exclude is None else self._copies(exclude[rows])", "exclude is None", "True"),
    ("sampler/networks/prediction.py", "2 * sigma / schedule.g2(t)", "2 * sigma", "sigma"),
    ("sampler/uturn.py", "int((self.grid < level).sum())", "<", "<="),
    (
        "analysis/moments/running.py",
        "self._add_square(self.count * count / total, shift)",
        "self.count * count / total",
        "count / total",
    ),
    ("analysis/theory/closed_form.py", 'return np.sqrt(gain) if flow == "ode" else gain', '"ode"', '"sde"'),
    (
        "analysis/theory/predictions.py",
        "gaussian = np.log1p(gamma * np.asarray(eigenvalues, dtype=np.float64)).sum(1) / 2",
        " / 2",
        "",
    ),
    ("analysis/theory/samplers.py", "(np.sqrt(variance) - np.sqrt(values)) ** 2", "np.sqrt(variance)", "variance"),
    ("analysis/statistics/bootstrap.py", "np.sqrt(clusters / (clusters - 1))", "clusters / (clusters - 1)", "1.0"),
    ("analysis/statistics/curves.py", "logs[0] + share * (logs[1] - logs[0])", "share", "(1 - share)"),
    ("analysis/uturn/correlations.py", "sample_products(a, b) - factor * (a @ mean)", " - factor * (a @ mean)", ""),
    ("analysis/observables/normality/lilliefors.py", "(1 + farther) / (1 + len(simulated))", "(1 + farther)", "farther"),
    ("analysis/observables/participation.py", "squares = scale**2 * squares", "scale**2", "scale"),
    ("analysis/observables/sample_times/times.py", "within = times.var(1, ddof=1)", "ddof=1", "ddof=0"),
    (
        "analysis/observables/affinity/scores.py",
        "np.append(np.ones(len(values)), features - len(values))",
        "features - len(values)",
        "0.0",
    ),
    ("analysis/observables/quality/distances.py", "(count - 1) / (len(self.features) - 1) * min", "(count - 1)", "count"),
    ("analysis/observables/chains/chains.py", "(_same_class(classes.T) - chance) / (1 - chance)", " / (1 - chance)", ""),
    ("data/formats/cifar.py", "if label.max() >= classes:", ">= classes", "> 10 * classes"),
    ("data/scaling.py", "return cls(low, (high - low) / 2, -1.0)._usable(name)", "/ 2", "/ 1"),
    ("data/values.py", "if shape[0] < 2:", "< 2", "< 1"),
    ("gaussian_test/build/truth.py", 'fits_in_memory(truth, 8 if settings.dtype == "float64" else 4', "else 4", "else 1"),
    ("gaussian_test/cli/group.py", "raise click.exceptions.Exit(2)", "Exit(2)", "Exit(1)"),
    ("gaussian_test/engine/shard.py", "bad = ~np.isfinite(table[name].values).all(axis=(2, 3))", ".all(", ".any("),
    ("gaussian_test/experiment/processes.py", "if key not in valid:", "valid", "(key,)"),
    ("gaussian_test/html_report/page.py", "autoescape=True", "True", "False"),
    ("gaussian_test/result/comparison.py", "(second - first, first, settings)[:", "second - first", "first - second"),
    ("gaussian_test/result/json_view.py", '"Infinity" if value > 0 else "-Infinity"', "> 0", "< 0"),
    ("gaussian_test/store/digest.py", 'if "label" in truth:', "in truth", "not in truth"),
    ("gaussian_test/store/files.py", "if content != sealed(whole):", "!= sealed(whole)", "== b''"),
    ("gaussian_test/store/parts.py", 'table.attrs.pop("run", None) != self.digest', "self.digest", "self.digest and False"),
    ("gaussian_test/sweep/states.py", "not _is_newer(output, error_path(output))", "not _is_newer", "_is_newer"),
]


def broken(number: int, copy: Path) -> Path:
    """Break a copy of the tree, and return the file that is broken."""
    name, line, wrong, right = BREAKS[number]
    path = copy / name
    text = path.read_text(encoding="utf-8")
    if text.count(line) != 1 or line.count(wrong) != 1:
        raise SystemExit(f"break {number}: {name} has {line!r} {text.count(line)} times: correct benchmarks/mutate.py")
    path.write_text(text.replace(line, line.replace(wrong, right)), encoding="utf-8")
    return path


def caught(number: int) -> str:
    """Return the first test that fails on a break; empty if none does."""
    name = BREAKS[number][0]
    room = max((room for room in ROOMS if name.startswith(f"{room}/")), key=len)
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copy = Path(folder) / "tree"
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
        for entry in listed:
            if (ROOT / entry).exists() or (ROOT / entry).is_symlink():
                (copy / entry).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / entry, copy / entry, follow_symlinks=False)
        broken(number, copy)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "logical", "-p", "no:cacheprovider"]
        environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        run = subprocess.run([*command, *ROOMS[room].split()], cwd=copy, env=environment, capture_output=True, text=True)
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED tests", "ERROR tests"))]
    return "" if run.returncode == 0 else (failed or [f"exit {run.returncode}"])[0]


def main(numbers: list[int]) -> int:
    """Make the breaks, and say which were caught."""
    missed = []
    for number in numbers:
        began = time.monotonic()
        by = caught(number)
        missed += [] if by else [number]
        print(f"{number:2d} {BREAKS[number][0]:52} {time.monotonic() - began:4.0f} s  {by[:110] or 'NOT CAUGHT'}", flush=True)
    print(f"{len(numbers) - len(missed)} of {len(numbers)} breaks are caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main([int(number) for number in sys.argv[1:]] or list(range(len(BREAKS)))))
