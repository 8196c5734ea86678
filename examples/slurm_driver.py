"""A run on workers that are jobs of their own, which come and go as the queue allows: ``python slurm_driver.py EXPERIMENT``.

This program is the driver. It needs hardly any memory or time of a processor, and runs where jobs may be submitted: on a login node
if that is allowed, else in a long job of one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster

import gaussian_test as gt


def main() -> int:
    """Read the command line, submit jobs of workers, run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("run.nc"), help="on a file system that all nodes see")
    parser.add_argument("--jobs", type=int, default=8, help="at most so many jobs at a time, each a worker")
    parser.add_argument("--threads", type=int, default=4, help="of each worker: cores of its job")
    parser.add_argument("--memory", default="16GB", help="of each job")
    parser.add_argument("--walltime", default="04:00:00", help="of each job; what it has not finished goes to another one")
    parser.add_argument("--directive", action="append", default=[], help="more for #SBATCH, as --directive=--gres=gpu:1")
    arguments = parser.parse_args()
    cluster = SLURMCluster(
        cores=1,  # of Dask: one shard at a time
        processes=1,
        job_cpu=arguments.threads,
        memory=arguments.memory,
        walltime=arguments.walltime,
        job_extra_directives=arguments.directive,
        job_script_prologue=[f"export OMP_NUM_THREADS={arguments.threads}"],
        worker_extra_args=["--memory-limit", "0"],  # the queue and the experiment's memory are limits enough
        log_directory="slurm-logs",
        scheduler_options={"dashboard_address": ":0"},  # any free port
    )
    try:
        cluster.adapt(minimum_jobs=1, maximum_jobs=arguments.jobs)
        result = gt.run(
            arguments.experiment, arguments.output, scheduler=cluster.scheduler_address, threads=arguments.threads, resume=True
        )
    except gt.UserError as error:
        print(f"slurm_driver: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:  # Ctrl-C, or the SIGTERM of a queue
        print(f"slurm_driver: interrupted: {interrupt}", file=sys.stderr)
        return getattr(interrupt, "exit_code", 130)
    finally:
        cluster.close()
    print(result.gaussian_test.show())
    return 0


if __name__ == "__main__":
    sys.exit(main())
