"""The examples of batch use run: the sweep, the driver of checkpoints, SLURM with stand-ins for its programs, the notebook."""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from notebook_room import run_notebook
from same_archives import assert_same

import gaussian_test as gt
from gaussian_test.cli.commands import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BIN = Path(sys.executable).parent
SMALL = {
    **{"samples": 24, "shard_size": 4, "turn_times": {"noise_to_signal": [0.3, 1.0, 4.0]}, "reverse": {"kind": "heun", "steps": 8}},
    **{"keep": {"pictures": 2}, "observables": "none", "statistics": {"bootstrap": 100}},
}

# What SLURM does that the examples rely on: a job is a script in a session of its own, with its size in the environment and its
# output in a file; its end takes everything along that it has started; scancel and the time limit send SIGTERM. Jobs are known by
# their process.
STAND_INS = {
    "sbatch": """
tasks=1 cpus=1
while [[ $1 == --* ]]; do
  case $1 in --ntasks=*) given=${1#*=} ;; --cpus-per-task=*) given_cpus=${1#*=} ;; esac
  shift
done
script=$1
for word in $(grep '^#SBATCH' "$script"); do
  case $word in --ntasks=*) tasks=${word#*=} ;; --cpus-per-task=*) cpus=${word#*=} ;; esac
done
export SLURM_NTASKS=${given:-$tasks} SLURM_CPUS_PER_TASK=${given_cpus:-$cpus}
cp "$script" "$STAND_IN/script-$$.sh"
setsid bash -c '
  export SLURM_JOB_ID=$$
  echo $$ >> "$STAND_IN/jobs"
  bash "$STAND_IN/script-$1.sh" "${@:2}" & script=$!
  echo $script > "$STAND_IN/batch-$$"
  wait $script
  echo $? > "$STAND_IN/exit-$$"
  kill -KILL -- -$$' job $$ "${@:2}" > "$STAND_IN/out-$$" 2>&1 < /dev/null &
until grep -qx $! "$STAND_IN/jobs" 2> /dev/null; do sleep 0.05; done  # then it is in a session of its own
echo "Submitted batch job $!"
""",
    "srun": """
count=1
while [[ $1 == --* ]]; do
  case $1 in --ntasks=*) count=${1#*=} ;; esac
  shift
done
for ((rank = 0; rank < count; rank++)); do SLURM_PROCID=$rank "$@" & done
wait
""",
    "scancel": """
for job in "$@"; do [[ $job == -* ]] || kill -TERM -- -"$job" 2>/dev/null; done
""",
    "squeue": """
echo JOBID
for job in $(cat "$STAND_IN/jobs" 2>/dev/null); do kill -0 "$job" 2>/dev/null && echo "$job"; done
exit 0
""",
}


@pytest.fixture
def room(tmp_path):
    """Return a folder with the examples and a small experiment, and the environment in which they are run."""
    for path in EXAMPLES.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump({**SMALL, "scores": [{"kind": "empirical"}, {"kind": "gaussian"}]}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return tmp_path, environment


@pytest.fixture
def slurm(room):
    """Put programs into the PATH that start jobs on this machine, and end all that is left of them."""
    folder, environment = room
    place = folder / "stand_in"
    place.mkdir()
    for name, text in STAND_INS.items():
        (place / name).write_text(f"#!/bin/bash\n{text}")
        (place / name).chmod(0o755)
    environment |= {"PATH": f"{place}{os.pathsep}{environment['PATH']}", "STAND_IN": str(place)}
    yield folder, environment, place
    for job in jobs(place):
        with suppress(ProcessLookupError):
            os.killpg(job, signal.SIGKILL)


def jobs(place):
    return [int(line) for line in (place / "jobs").read_text().split()] if (place / "jobs").exists() else []


def is_gone(job):
    try:
        os.killpg(job, 0)
    except ProcessLookupError:
        return True
    return False


def wait(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def start(arguments, room):
    folder, environment = room[:2]
    return subprocess.Popen(
        arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process, code=0):
    """Return what a process has said on stdout; whatever it has started goes with it."""
    try:
        output, error = process.communicate(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code, error
    assert "Traceback" not in error, error
    return output


def finished(folder, name="run.nc"):
    return list(folder.glob(f"{name}.parts/shard-*.part"))


def alone(folder):
    """Run the experiment in this process, with the threads that the workers have."""
    gt.run(folder / "experiment.yaml", folder / "alone.nc", threads=1, progress=False)
    return folder / "alone.nc"


def test_the_sweep_and_the_notebook_that_opens_it(room, monkeypatch):
    folder, _ = room
    small = ["samples=8", "shard_size=4", "turn_times.noise_to_signal.count=3", "statistics.bootstrap=100"]
    command = ["gaussian-test", "sweep", "sweep.yaml", "-o", "runs", *(word for key in small for word in ("--set", key))]
    monkeypatch.chdir(folder)
    main(command[1:], standalone_mode=False)
    sweep = yaml.safe_load((EXAMPLES / "sweep.yaml").read_text())["sweep"]
    there = {path.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("*.nc")}
    assert len(there) == len(sweep["reverse.kind"]) * len(sweep["reverse.steps"]) * len(sweep["scores"]) == 8
    main([*command[1:], "--resume"], standalone_mode=False)
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("*.nc")} == there
    question = "[str(first), str(last), value, low, high, len(frame)]"
    (first, last, value, low, high, rows), ran = run_notebook(folder / "open_sweep.py", {"FOLDER": "runs"}, question)
    assert rows == 8  # each run has one score
    assert low <= value <= high
    assert ran.figures == 1
    ends = [gt.open_archive(folder / "runs" / f"{name}.nc").autocorrelation.sel(score="network") for name in (first, last)]
    assert value in (ends[1] - ends[0]).values


def test_the_driver_goes_on_where_it_was_interrupted(room, monkeypatch):
    folder, _ = room
    finish(start([sys.executable, "tiny_network.py", "--checkpoints", "1", "40"], room))
    checkpoints = sorted(str(path.relative_to(folder)) for path in (folder / "checkpoints").iterdir())
    assert [Path(name).stem for name in checkpoints] == ["step_000001", "step_000040"]
    command = [sys.executable, "driver.py", *checkpoints, "--samples", "96", "--turn-times", "4", "--steps", "24"]
    command += ["--shard-size", "8", "--micro-batch", "8"]
    process = start([*command, "-o", "checked"], room)
    wait(lambda: len(finished(folder / "checked", "step_000040.nc")) >= 2 or process.poll() is not None, "no shard is finished")
    process.send_signal(signal.SIGTERM)
    assert "step_000040: running" in finish(process, 128 + signal.SIGTERM)
    kept = {path: path.stat().st_mtime_ns for path in finished(folder / "checked", "step_000040.nc")}
    first = (folder / "checked" / "step_000001.nc").stat().st_mtime_ns
    assert 2 <= len(kept) < 12
    assert not (folder / "checked" / "step_000040.nc").exists()

    said = finish(start([*command, "-o", "checked"], room))
    assert "step_000001: finished already" in said
    assert (folder / "checked" / "step_000001.nc").stat().st_mtime_ns == first
    assert re.search(r"step_000001 to step_000040: C changes by up to [-+]0\.\d+ ", said)
    assert not (folder / "checked" / "step_000040.nc.parts").exists()
    # what an archive says that was run, run again without a disturbance, is that archive
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    experiment = yaml.safe_load(gt.open_archive(folder / "checked" / "step_000040.nc").attrs["experiment"])
    gt.run(experiment, folder / "undisturbed.nc", threads=1, progress=False)
    assert_same(folder / "checked" / "step_000040.nc", folder / "undisturbed.nc")


def test_the_driver_refuses_in_one_sentence(room, monkeypatch, capsys):
    folder, _ = room
    (folder / "bad.safetensors").write_bytes(b"no weights")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "argv", ["driver.py", "bad.safetensors"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path("driver.py", run_name="__main__")
    (said,) = capsys.readouterr().err.splitlines()
    assert (ended.value.code, said[:8]) == (2, "driver: ")


def test_one_allocation_of_slurm(slurm):
    """The archive is that of a run without a cluster; a job that is told to stop goes on when it is submitted again."""
    folder, environment, place = slurm
    environment["OUTPUT"] = str(folder / "run.nc")
    settings = yaml.safe_load((folder / "experiment.yaml").read_text()) | {"samples": 48, "reverse": {"kind": "heun", "steps": 32}}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(settings))

    def submit(tasks):
        command = ["sbatch", f"--ntasks={tasks}", "--cpus-per-task=1", "slurm.sh", "experiment.yaml"]
        return int(finish(start(command, slurm)).split()[-1])

    def ended(job):
        wait(lambda: (place / f"exit-{job}").exists() and is_gone(job), f"job {job} does not end", 300)
        return int((place / f"exit-{job}").read_text())

    job = submit(2)  # one worker beside the driver
    wait((place / f"batch-{job}").exists, "the job does not start")
    wait(lambda: len(finished(folder)) >= 3 or is_gone(job), "no shard is finished")
    os.kill(int((place / f"batch-{job}").read_text()), signal.SIGTERM)  # to the script alone, as --signal=B:TERM says
    assert ended(job) == 128 + signal.SIGTERM
    kept = {path: path.stat().st_mtime_ns for path in finished(folder)}
    assert 3 <= len(kept) < 12
    assert not (folder / "run.nc").exists()
    assert not list(folder.glob("scheduler-*.json"))
    seen = {}

    def look():
        for path in finished(folder):
            with suppress(FileNotFoundError):  # the archive is whole
                seen[path] = path.stat().st_mtime_ns
        return is_gone(job)

    job = submit(2)
    wait((place / f"batch-{job}").exists, "the job does not start")
    wait(look, "the job does not end", 300)
    assert ended(job) == 0
    assert {path: seen[path] for path in kept} == kept  # not computed again
    assert_same(folder / "run.nc", alone(folder))
    assert len(jobs(place)) == 2


def test_jobs_of_dask_jobqueue(slurm):
    """Workers are jobs that the driver submits; the archive is that of a run without them, and no job is left."""
    folder, _, place = slurm
    command = [sys.executable, "slurm_driver.py", "experiment.yaml", "-o", "run.nc", "--jobs", "2", "--threads", "1"]
    said = finish(start([*command, "--memory", "2GB", "--directive=--gres=gpu:1"], slurm))
    assert said.startswith("Gaussian Test of digits of 8 x 8 pixels (scikit-learn): 24 of 1797 samples")
    submitted = jobs(place)
    assert 1 <= len(submitted) <= 4  # two at a time
    scripts = [path.read_text() for path in place.glob("script-*.sh")]
    assert len(scripts) == len(submitted)
    for line in ("#SBATCH --cpus-per-task=1", "#SBATCH --mem=2G", "#SBATCH -t 04:00:00", "#SBATCH --gres=gpu:1", "--nthreads 1"):
        assert all(line in script for script in scripts), line
    assert any("Registered to" in path.read_text() for path in place.glob("out-*"))  # a worker of theirs has connected
    wait(lambda: all(map(is_gone, submitted)), "a job is left")
    assert_same(folder / "run.nc", alone(folder))
