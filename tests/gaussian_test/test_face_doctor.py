"""The doctor: what is well, and what is wrong is said with what to do, by an exit code too."""

import errno
import json
import os
import time
from importlib import metadata

import pytest
import torch
from face_zoo import invoke

import gaussian_test as gt
from gaussian_test.build import memory
from gaussian_test.cli import doctor

SMALL = {"samples": 8, "turn_times": {"noise_to_signal": [0.5, 5.0]}, "observables": "none"}
SETS = [word for item in ("samples=8", "turn_times.noise_to_signal=[0.5, 5]", "observables=none") for word in ("--set", item)]


@pytest.fixture
def lacking(monkeypatch):
    """Return a function that hides an installed library, or shows another version of it."""
    real = metadata.version

    def hide(name, other=None):
        def version(asked):
            if asked.lower() != name:
                return real(asked)
            if other is None:
                raise metadata.PackageNotFoundError(asked)
            return other

        monkeypatch.setattr(metadata, "version", version)

    return hide


def diagnosed(settings=SMALL, device="cpu"):
    return {check.name: check for check in doctor.diagnose(settings, device=device)}


def test_all_is_well_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(torch.get_num_threads())), raising=False)
    done = invoke("doctor", "--device", "cpu", *SETS, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["ok"]) == (0, True), done.output
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["versions"]["numbers"]["torch"] == torch.__version__
    assert {"extra cluster", "extra slurm", "extra diffusers", "extra azula"} <= set(checks)
    assert not {"extra dev", "extra test"} & set(checks)
    assert checks["device"]["numbers"] == {"device": "cpu"}
    assert checks["threads"]["numbers"]["threads"] == torch.get_num_threads()
    assert checks["memory"]["numbers"]["cap_bytes"] == memory.memory_cap(gt.Experiment())
    # of the digits by default: all three scores
    assert [name for name in checks if name.startswith("score")] == ["score empirical", "score network", "score gaussian"]
    assert list(tmp_path.iterdir()) == []


def test_text_and_exit_code_say_the_same(lacking):
    lacking("numpy", "1.26.4")
    done = invoke("doctor", "--device", "cpu", *SETS)
    assert done.exit_code == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("numpy"))
    assert line.split(maxsplit=2)[1:] == ["problem", "numpy 1.26.4 is none of >=2.0: pip install 'numpy>=2.0'"]
    assert done.stdout.splitlines()[-1] == "1 problem"


def test_a_missing_extra_is_named_with_what_to_install_and_is_no_problem(lacking):
    lacking("distributed")
    checks = diagnosed()
    for extra in ("cluster", "slurm"):  # which needs the first one
        wanted = ("absent", "distributed is not installed", f"pip install 'gaussian-test[{extra}]'")
        assert (checks[f"extra {extra}"].state, checks[f"extra {extra}"].found, checks[f"extra {extra}"].advice) == wanted
    assert checks["extra azula"].state == "ok"
    assert "problem" not in {check.state for name, check in checks.items() if name != "threads"}


def test_a_missing_library_is_a_problem_and_the_rest_is_left_out(lacking):
    lacking("scipy")
    checks = diagnosed()
    assert checks["scipy"].state == "problem"
    assert checks["scipy"].advice.startswith("pip install 'scipy>=")
    assert "scipy" not in checks["versions"].found
    assert "device" not in checks


@pytest.mark.parametrize("device", ["cuda:9", "tpu"])
def test_a_device_that_is_not_there(device):
    checks = diagnosed(device=device)
    assert (checks["device"].state, device in checks["device"].found) == ("problem", True)
    assert not [name for name in checks if name.startswith("score")]  # of which device would that be?


def test_auto_says_what_it_took_and_why_and_a_library_that_breaks_is_a_finding(monkeypatch):
    found = diagnosed(device="auto")["device"].found
    assert "taken by --device auto" in found
    assert torch.cuda.is_available() or "finds no CUDA device" in found

    def broken():
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    check = diagnosed(device="auto")["device"]
    assert (check.state, "libcudart.so.12" in check.found) == ("problem", True)


def test_more_threads_than_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    check = diagnosed()["threads"]
    assert (check.state, check.found) == ("problem", "8 of torch on 1 cores: they wait for each other")
    assert check.advice == "run with --threads 1"


def test_memory_that_is_asked_for_and_not_there(monkeypatch):
    monkeypatch.setattr(doctor, "_free", lambda: 10**9)
    assert diagnosed(SMALL | {"memory": "500MB"})["memory"].state == "ok"
    check = diagnosed(SMALL | {"memory": "4GB"})["memory"]
    assert check.state == "problem"
    assert "1.0GB are free now" in check.found


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, without_privileges):
    tmp_path.chmod(0o500)
    monkeypatch.chdir(tmp_path)
    check = diagnosed()["folder"]
    tmp_path.chmod(0o700)
    assert (check.state, os.strerror(errno.EACCES) in check.found) == ("problem", True)


def test_an_experiment_that_cannot_run_is_a_problem_and_one_that_cannot_be_read_is_refused(tmp_path):
    checks = diagnosed(SMALL | {"data": {"source": "file", "path": str(tmp_path / "none.npy")}})
    assert (checks["experiment"].state, "none.npy" in checks["experiment"].found) == ("problem", True)
    done = invoke("doctor", "--set", "sampels=4")
    assert (done.exit_code, done.stdout) == (2, "")


SEEN = []


def slow(x, t, label=None):
    SEEN.append(len(x))
    time.sleep(0.05)
    return x * 0


def build():
    return slow


def test_the_time_of_a_call_is_that_of_the_batch_of_the_run_and_the_estimate_counts_every_state():
    """A network that takes 50 ms for a call of 4 states; 8 samples, 2 turn times, Heun's two evaluations a step."""
    scores = [{"kind": "callable", "factory": "test_face_doctor:build", "prediction": "x0", "micro_batch": 4}]
    settings = SMALL | {"scores": scores, "reverse": {"kind": "heun", "steps": 4}, "keep": {"pictures": 0}}
    SEEN.clear()
    checks = diagnosed(settings)
    numbers = checks["score callable"].numbers
    assert numbers["states"] == 4
    assert SEEN[-doctor.CALLS :] == [4] * doctor.CALLS
    assert 0.05 <= numbers["seconds"] < 0.5
    SEEN.clear()
    gt.run(settings, progress=False)
    tried = 2 + SEEN.count(16)  # calls with which a network is tried before it is run
    assert SEEN[:tried] == [2, 2] + [16] * (tried - 2)
    assert numbers["states_of_the_run"] == sum(SEEN[tried:])
    assert checks["run"].numbers["seconds"] == pytest.approx(numbers["states_of_the_run"] * numbers["seconds"] / 4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "for the covariance of 64 features"),
        ({"statistics": {"bootstrap": 100_000}}, "for 100000 resamples"),
        ({"repeats": 10**7}, None),
    ],
)
def test_what_a_run_takes_of_memory_is_said_before_it(settings, said):
    checks = diagnosed(SMALL | {"statistics": {"bootstrap": 100}, "memory": "2GB"} | settings)
    if said is None:
        assert "memory = 2.0GB is too little for the states" in checks["experiment"].found
    else:
        assert said in checks["needs"].found
        assert max(checks["needs"].numbers.values()) < 2e9
