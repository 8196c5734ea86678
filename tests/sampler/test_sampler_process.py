"""What check_process leaves open of every forward process: exact ends, rows, turn times, refusals.

That each keeps the laws of check_process (ratio, inverse, drift, diffusion, ...) is in test_face_conformance.py, and that the named
ones have the textbook's alpha and sigma in test_theory_sampler_law.py.
"""

import math

import numpy as np
import pytest
import torch
from sampler_zoo import ALPHAS_CUMPROD, BETAS, LEVELS, PROCESSES, normal

from gaussian_test.sampler import Cosine, DiscreteVP, OrnsteinUhlenbeck, Rectified, VarianceExploding, VariancePreserving


@pytest.fixture(params=PROCESSES)
def process(request):
    return PROCESSES[request.param]()


def times(process, whole=False):
    """Times of the usual levels; for a discrete process in the middle of an interval, or at whole levels."""
    each = process.time(torch.tensor(LEVELS, dtype=torch.float64))
    if isinstance(process, DiscreteVP):
        each = each.floor() + (0 if whole else 0.5)
    return each


def test_times_in_float32_give_schedules_in_float64(process):
    for name in ("alpha", "sigma", "time", "f", "g2", "noise_to_signal"):
        single = getattr(process, name)(times(process)[:1].float())
        assert (single.shape, single.dtype) == ((1,), torch.float64)


def test_no_step_does_nothing(process):
    """From the clean data to themselves, and from a time to itself: exactly."""
    assert (float(process.alpha(0.0)), float(process.sigma(0.0))) == (1, 0)
    x = normal(3, 2)
    assert torch.equal(process.noised(x, 0.0, normal(3, 2, seed=1)), x)
    t = times(process)
    for found, exact in zip(process.transition(t, t), (1.0, 0.0), strict=True):
        assert found.tolist() == [exact] * len(t)
    assert process.integrated_score_weight(t, t).tolist() == [0.0] * len(t)


def test_noise_from_a_later_time_on_is_that_of_the_transition(process):
    t = times(process)
    amplitude, deviation = process.transition(0.7 * t, t)
    x, z = normal(len(t), 1), normal(len(t), 1, seed=1)
    expected = amplitude[:, None] * x + deviation[:, None] * z
    torch.testing.assert_close(process.noised(x, t, z, 0.7 * t), expected, rtol=1e-13, atol=1e-13)


def test_noised_with_a_time_per_row_is_row_by_row(process):
    t, event = times(process), (1, 2, 2)
    x, z = (normal(len(t), *event, seed=seed, dtype=torch.float32) for seed in (0, 1))
    together = process.noised(x, t, z)
    alone = [process.noised(x[row : row + 1], float(t[row]), z[row : row + 1]) for row in range(len(t))]
    assert together.dtype == alone[0].dtype == torch.float32
    torch.testing.assert_close(together, torch.cat(alone))


def test_a_wrong_number_of_times_is_refused(process):
    for count in (2, 4):
        with pytest.raises(ValueError, match="does not fit a batch of 3"):
            process.noised(normal(3, 2), torch.full((count,), process.time_max), normal(3, 2))


def test_turn_times_inside_are_used_and_those_within_rounding_of_the_ends_are_the_ends(process):
    for t in (process.time_min, process.time_max, *times(process, whole=True).tolist()):
        assert process.turn_time(t) == t
    assert process.turn_time(process.time_max * (1 + 1e-12)) == process.time_max
    assert process.turn_time(process.time_min * (1 - 1e-12)) == process.time_min


def test_turn_times_and_ratios_outside_are_refused(process):
    low, high = process.time_min / 2, process.time_max * 1.001
    for time in (0.0, -1e-8, -1.0, -process.time_max, low, high, math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match="lies outside the process"):
            process.turn_time(time)
    for ratio in (0.0, -1.0, 1e9, 1e-9, math.nan, math.inf):
        with pytest.raises(ValueError, match="lies outside the process"):
            process.turn_time_from_noise_to_signal(ratio)
    for time in (0.0, -1e-8, -7e-8):
        with pytest.raises(ValueError, match="outside"):
            VarianceExploding(1e-9, 80.0).turn_time(time)


def test_a_ratio_asked_for_is_the_ratio_used(process):
    """The extreme ones too; a discrete process takes its nearest level."""
    for t in (process.time_min, process.time_max):
        assert process.turn_time_from_noise_to_signal(float(process.noise_to_signal(t))) == pytest.approx(t, rel=1e-9)
    for level in [] if isinstance(process, DiscreteVP) else LEVELS:
        assert float(process.noise_to_signal(process.turn_time_from_noise_to_signal(level))) == pytest.approx(level, rel=1e-10)


def test_repr_names_the_range(process):
    assert repr(process).startswith(f"{type(process).__name__}(time_min={process.time_min:g}, time_max={process.time_max:g}")


def test_discrete_passes_through_its_levels():
    k, levels = torch.arange(1, 1001).double(), torch.from_numpy(ALPHAS_CUMPROD)
    for process in (DiscreteVP(given) for given in (list(ALPHAS_CUMPROD), ALPHAS_CUMPROD, levels)):
        torch.testing.assert_close(process.alpha(k) ** 2, levels, rtol=1e-12, atol=0)
        torch.testing.assert_close(process.sigma(k) ** 2, 1 - levels, rtol=1e-11, atol=0)
        # the rate of the step that ends at a level is minus the logarithm of 1 - beta
        torch.testing.assert_close(process.g2(k), torch.from_numpy(-np.log1p(-BETAS)), rtol=1e-9, atol=0)


def test_constant_rate_vp_is_ornstein_uhlenbeck():
    vp, ou = VariancePreserving(2.0, 2.0), OrnsteinUhlenbeck()
    t = torch.tensor([0.01, 0.5, 0.9], dtype=torch.float64)
    for name in ("alpha", "sigma", "f", "g2"):
        torch.testing.assert_close(getattr(vp, name)(t), getattr(ou, name)(t), rtol=1e-12, atol=0)
    torch.testing.assert_close(vp.time(vp.noise_to_signal(t)), t, rtol=1e-12, atol=0)


RANGE = {OrnsteinUhlenbeck: [(0.1, math.inf)], Cosine: [(0.1, 1.0)], Rectified: [(0.1, 1.0), (0.1, math.nan)]}
IMPOSSIBLE = [
    *((VarianceExploding, ends) for ends in [(0, 1), (-1, 1), (2, 1), (1, 1), (1, math.inf), (math.nan, 1), (1, math.nan)]),
    *((kind, ends) for kind, own in RANGE.items() for ends in [(0.5, 0.4), (0.0, 0.4), (math.nan, 0.4), *own]),
    *((VariancePreserving, rates) for rates in [(0.0, 1.0), (2.0, 1.0), (0.1, math.inf), (math.nan, 1.0), (0.1, 20.0, 1.0, 0.5)]),
    *((DiscreteVP, (levels,)) for levels in [[], [0.5], [0.5, 0.6], [0.5, 0.5], [1.0, 0.5], [0.5, 0.0], [0.5, math.nan]]),
]


@pytest.mark.parametrize(("kind", "given"), IMPOSSIBLE)
def test_impossible_processes_are_refused(kind, given):
    with pytest.raises(ValueError, match=r": (swap|give|correct)"):
        kind(*given)
