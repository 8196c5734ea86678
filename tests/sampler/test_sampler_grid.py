"""Grids: EDM's formula, and a reverse grid that descends through every turn time to 0."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sampler_zoo import CONTINUOUS, PROCESSES

from gaussian_test.sampler import UTurnPlan, VarianceExploding, edm_levels, log_levels, process_grid, reverse_grid

QUICK = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@QUICK
@given(st.floats(1e-4, 10), st.floats(1.001, 1e4), st.integers(2, 200))
def test_log_levels_have_one_ratio(low, factor, count):
    high = low * factor
    levels = log_levels(low, high, count)
    assert len(levels) == count
    assert levels[0] == low
    assert levels[-1] == high
    np.testing.assert_allclose(levels[1:] / levels[:-1], factor ** (1 / (count - 1)), rtol=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "count"),
    [(0, 1, 3), (-1, 1, 3), (2, 1, 3), (1, 2, 1), (1, 1, 2), (1, 2, 0), (1, math.inf, 3), (math.nan, 1, 3), (1, math.nan, 3)],
)
def test_impossible_log_levels_are_refused(low, high, count):
    assert log_levels(3.0, 3.0, 1).tolist() == [3.0]  # which is possible
    with pytest.raises(ValueError, match="cannot space"):
        log_levels(low, high, count)


@QUICK
@given(st.integers(2, 120), st.floats(1e-4, 1), st.floats(1.5, 1e5), st.floats(1, 12))
def test_edm_levels_are_karras_formula(count, sigma_min, factor, rho):
    sigma_max = sigma_min * factor
    expected = [
        (sigma_max ** (1 / rho) + k / (count - 1) * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho for k in range(count)
    ]
    levels = edm_levels(count, sigma_min, sigma_max, rho)
    np.testing.assert_allclose(levels[:-1], expected, rtol=1e-9)
    assert levels[-1] == 0
    assert (levels[0], levels[-2]) == (sigma_max, sigma_min)


@pytest.mark.parametrize(
    "arguments",
    [(0,), (-1,), (3, 0.0, 1.0), (3, 2.0, 1.0), (3, 1.0, 1.0), (3, 1.0, math.inf), (3, math.nan, 1.0), (3, 0.1, 1.0, 0.0)],
)
def test_impossible_edm_levels_are_refused(arguments):
    with pytest.raises(ValueError, match="cannot make"):
        edm_levels(*arguments)


# turn times as exponents of their ratio, at least 2 percent apart, inside every process
EXPONENTS = st.lists(st.integers(0, 380), min_size=1, max_size=9, unique=True)


def turn_times(process, exponents):
    return [process.turn_time_from_noise_to_signal(0.03 * 1.02**k) for k in exponents]


@pytest.mark.parametrize("name", PROCESSES)
@QUICK
@given(exponents=EXPONENTS, steps=st.integers(1, 80), rho=st.sampled_from([1.0, 3.0, 7.0]))
def test_reverse_grid_descends_through_every_turn_time(name, exponents, steps, rho):
    process = PROCESSES[name]()
    turns = turn_times(process, exponents)
    grid = reverse_grid(process, turns, steps, rho)
    assert grid.dtype == np.float64
    assert (np.diff(grid) < 0).all()
    assert grid[0] == max(turns)
    assert grid[-1] == 0
    assert set(turns) <= set(grid.tolist())
    assert all(process.level(t) == t for t in grid)
    assert all(process.time_min <= t for t in grid[:-1])
    # any order and any repetition of the turn times is the same grid
    assert np.array_equal(grid, reverse_grid(process, sorted(turns), steps, rho))


@QUICK
@given(exponents=EXPONENTS, steps=st.integers(1, 1500))
def test_discrete_grid_never_exceeds_steps_and_turns(exponents, steps):
    process = PROCESSES["discrete_vp"]()
    turns = set(turn_times(process, exponents))
    taken = len(reverse_grid(process, sorted(turns), steps)) - 1
    assert taken <= max(steps, len(turns) + 1)
    assert taken <= max(turns)


@pytest.mark.parametrize("name", CONTINUOUS)
@QUICK
@given(exponents=EXPONENTS, more=st.integers(1, 60), rho=st.sampled_from([1.0, 7.0]))
def test_reverse_grid_takes_the_steps_asked_for_even_in_the_warped_ratio(name, exponents, more, rho):
    process = PROCESSES[name]()
    turns = turn_times(process, exponents)
    grid = reverse_grid(process, turns, len(turns) + more, rho)
    assert len(grid) == len(turns) + more + 1
    warped = process.noise_to_signal(torch.from_numpy(grid)).numpy() ** (1 / rho)
    corners = sorted({*turns, process.time_min}, reverse=True)
    places = [grid.tolist().index(t) for t in corners]
    for first, last in pairwise(places):
        np.testing.assert_allclose(np.diff(warped[first : last + 1]), (warped[last] - warped[first]) / (last - first), rtol=1e-5)


@QUICK
@given(exponents=EXPONENTS, more=st.integers(2, 90))
def test_longer_segments_do_not_get_fewer_steps(exponents, more):
    process = VarianceExploding()
    turns = turn_times(process, exponents)
    grid = reverse_grid(process, turns, len(turns) + more).tolist()
    corners = sorted({*turns, process.time_min}, reverse=True)
    lengths = [a ** (1 / 7) - b ** (1 / 7) for a, b in pairwise(corners)]
    counts = [grid.index(b) - grid.index(a) for a, b in pairwise(corners)]
    for length, count in zip(lengths, counts, strict=True):
        for other, fewer in zip(lengths, counts, strict=True):
            if length > other * (1 + 1e-9):
                assert count >= fewer


@pytest.mark.parametrize("name", PROCESSES)
def test_the_ends_of_a_grid(name):
    """One step, or a turn at the smallest time, goes straight to 0; twice the same turn time is one; no step or turn is refused."""
    process = PROCESSES[name]()
    turn = process.turn_time_from_noise_to_signal(2.0)
    assert reverse_grid(process, [turn], 1).tolist() == reverse_grid(process, [turn, turn], 1).tolist() == [turn, 0.0]
    for steps in (1, 2, 30):
        assert reverse_grid(process, [process.time_min], steps).tolist() == [process.time_min, 0.0]
    for steps in (0, -3):
        with pytest.raises(ValueError, match=f"steps = {steps}"):
            reverse_grid(process, [process.time_max], steps)
    with pytest.raises(ValueError, match="no turn time"):
        reverse_grid(process, [], 4)


# -- a sampler's own grid ----------------------------------------------------------------------------------------------------------


def test_the_grid_of_variance_exploding_is_edms_with_the_papers_defaults():
    inverse = 1 / 7
    for steps in (1, 2, 18, 256):
        share = np.arange(steps) / max(steps - 1, 1)
        expected = np.append((80**inverse + share * (0.002**inverse - 80**inverse)) ** 7, 0)
        for grid in (edm_levels(steps), process_grid(VarianceExploding(), steps)):
            np.testing.assert_allclose(grid, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="cannot make 0 EDM levels"):
        process_grid(VarianceExploding(), 0)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_grid_of_a_process_spans_it_evenly_in_the_warped_ratio(name):
    process = PROCESSES[name]()
    grid = process_grid(process, 12, rho=5)
    assert (np.diff(grid) < 0).all()
    assert (grid[0], grid[-1]) == (process.time_max, 0)
    assert grid[-2] == pytest.approx(process.time_min, rel=1e-9)
    if name in CONTINUOUS:
        warped = process.noise_to_signal(torch.from_numpy(grid[:-1])).numpy() ** (1 / 5)
        np.testing.assert_allclose(np.diff(warped), np.diff(warped).mean(), rtol=1e-6)
    else:
        assert (grid == grid.round()).all()


@pytest.mark.parametrize("name", PROCESSES)
def test_turn_times_move_to_the_nearest_level_of_a_grid_of_its_own(name):
    """No other level is nearer in the logarithm of the noise, and the grid goes on from there as it would without turns."""
    process = PROCESSES[name]()
    asked = [process.turn_time_from_noise_to_signal(nu) for nu in (0.05, 0.7, 0.72, 6.0)]
    plan = UTurnPlan(process, asked, steps=20, grid_of="process")
    grid = process_grid(process, 20)

    def log_nu(times):
        return process.noise_to_signal(torch.tensor(times, dtype=torch.float64)).log().numpy()

    for time in asked:
        distances = np.abs(log_nu(grid[:-1].tolist()) - log_nu([time]))
        assert np.abs(log_nu(list(plan.levels)) - log_nu([time])).min() == pytest.approx(distances.min())
    assert set(plan.levels) <= set(grid.tolist())
    assert len(plan.levels) == 3  # two of them are one level
    np.testing.assert_array_equal(plan.grid, grid[grid <= plan.levels[-1]])
    assert plan.reverse_steps() == [int((grid < level).sum()) for level in plan.levels]
