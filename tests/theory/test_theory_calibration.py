"""The statistics hold: a small version of benchmarks/calibration.py, on problems with a known truth."""

import importlib.util
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "problems.py"
SPEC = importlib.util.spec_from_file_location("calibration_problems", PATH)
problems = importlib.util.module_from_spec(SPEC)
sys.modules["calibration_problems"] = problems  # dataclasses look for their module
SPEC.loader.exec_module(problems)

COVERAGE = [problem for problem in problems.PROBLEMS if problem.kind == "coverage"]
TESTS = [problem for problem in problems.PROBLEMS if problem.kind == "false positives"]
AT_LEAST = "at least"


problems.two_gaussians = cache(problems.two_gaussians)  # three problems start from the same runs


def repeated(run, seeds):
    found = defaultdict(list)
    for seed in seeds:
        for name, value in run(seed).items():
            found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("problem", COVERAGE, ids=[problem.run.__name__ for problem in COVERAGE])
def test_intervals_and_bands_hold_the_truth_as_often_as_they_say(problem):
    """At a true rate of 95 %: of 100 seeds (of whole runs 80) at least three standard errors less, and not all of them."""
    seeds = 80 if problem.run is problems.exact_turns else 100
    for name, held in repeated(problem.run, range(seeds)).items():
        assert held.mean() >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / seeds), name
        if AT_LEAST not in name:
            assert held.mean() < 1, name


@pytest.mark.parametrize("problem", TESTS, ids=[problem.run.__name__ for problem in TESTS])
def test_tests_reject_what_is_true_as_rarely_as_they_say(problem):
    """Of 30 seeds at most 16.7 %: at a true rate of 5 % three standard errors are 11.9 %."""
    for name, pvalue in repeated(problem.run, range(30)).items():
        assert (pvalue <= 0.05).mean() <= 5 / 30, name


def test_the_closed_forms_of_two_gaussians_are_met_over_a_grid_of_noise_levels():
    """Auto-correlation, mmse and class retention within 4 standard errors of THEORY's formulas."""
    _, result = problems.two_gaussians(0, problems.SEPARATION, problems.sampler.ExactReversal(), repeats=4)
    seen, row = problems.known(), result.isel(score=0)
    for name, truth in (
        ("autocorrelation", seen.autocorrelation),
        ("autocorrelation_one_shot_squared", 1 - seen.mmse / (problems.DIMENSION * problems.VARIANCE + problems.SEPARATION**2)),
        ("class_retention", 2 * seen.same_class - 1),
    ):
        error = np.maximum(row[f"{name}_se"].values, 1 / problems.STARTS)  # where all agree there is no estimate of the error
        assert (np.abs(row[name].values - truth) <= 4 * error).all(), name
        assert row[f"{name}_se"].values.max() < 0.1


def test_the_gaussian_test_sees_two_gaussians_that_are_far_apart_and_not_one():
    rejected = {
        separation: np.mean(
            [problems.gaussian_test_power(seed, separation, 1.0, 200)["Gaussian Test, one evaluation"] for seed in range(40)]
        )
        for separation in (0.0, 3.0)
    }
    assert rejected[0.0] <= 0.15
    assert rejected[3.0] >= 0.9
