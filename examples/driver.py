"""Run the Gaussian Test on every checkpoint of a model, one archive each, and compare them: ``python driver.py CHECKPOINT ...``.

What is finished is kept: the same command again goes on where it was stopped, and computes nothing twice.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import xarray as xr

import gaussian_test as gt


def experiment(checkpoint: Path, arguments: argparse.Namespace) -> gt.Experiment:
    """Return what is run for one checkpoint; all of them share samples and noise, so that they can be compared in pairs."""
    network = {
        "kind": "callable",
        "name": "network",
        "factory": arguments.factory,
        "weights": str(checkpoint.absolute()),
        "micro_batch": arguments.micro_batch,
    }
    return gt.Experiment.load(
        {
            "scores": [network, {"kind": "gaussian"}],
            "turn_times": {"noise_to_signal": {"min": 0.2, "max": 10, "count": arguments.turn_times}},
            "reverse": {"steps": arguments.steps},
            "samples": arguments.samples,
            "shard_size": arguments.shard_size,
            "seed": arguments.seed,
            "observables": "none",
        }
    )


def report(results: dict[str, xr.Dataset]) -> str:
    """Return a line for each checkpoint, and one for each step from a checkpoint to the next."""
    lines = ["checkpoint          T_m      T_G   largest violation of detailed balance, in standard errors"]
    for name, result in results.items():
        row = result.sel(score="network")
        violation = float(abs(row.balance_squared / row.balance_squared_se).max())
        times = (float(row[f"{time}_noise_to_signal"]) for time in ("memorization", "affine"))
        lines.append(f"{name:<16} {next(times):6.3g}   {next(times):6.3g}   {violation:.1f}")
    names = list(results)
    for before, after in itertools.pairwise(names):
        change = gt.compare(results[before], results[after]).sel(score="network")
        at = int(abs(change.autocorrelation_difference).argmax("noise_to_signal"))
        value, error, p = (float(change[f"autocorrelation_difference{end}"][at]) for end in ("", "_se", "_pvalue"))
        nu = float(change.noise_to_signal[at])
        lines.append(f"{before} to {after}: C changes by up to {value:+.3f} +- {error:.3f}, at nu = {nu:.2f} (p = {p:.2g})")
    return "\n".join(lines)


def main() -> int:
    """Read the command line, run what is missing, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="weights in safetensors")
    parser.add_argument("-o", "--output", type=Path, default=Path("checked"), help="folder for the archives (default: checked)")
    parser.add_argument("--factory", default="tiny_network:build", help="function that makes the network (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--turn-times", type=int, default=12)
    parser.add_argument("--steps", type=int, default=128, help="reverse steps")
    parser.add_argument("--shard-size", type=int, default=32, help="samples between two savings")
    parser.add_argument("--micro-batch", type=int, default=512, help="states per call of the network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes that compute the shards")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = {}
    try:
        for checkpoint in arguments.checkpoints:
            output = arguments.output / f"{checkpoint.stem}.nc"
            print(f"{checkpoint.stem}: {'finished already' if output.exists() else 'running'}", flush=True)
            results[checkpoint.stem] = gt.run(experiment(checkpoint, arguments), output, workers=arguments.workers, resume=True)
    except gt.UserError as error:
        print(f"driver: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:  # Ctrl-C, or the SIGTERM of a queue
        print(f"driver: interrupted: {interrupt}; the same command again goes on", file=sys.stderr)
        return getattr(interrupt, "exit_code", 130)
    print(report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
