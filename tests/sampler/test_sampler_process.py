"""Laws of every forward process: its ratio, its SDE, its transitions, and that equal ratios are equal experiments."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sampler_zoo import ALPHAS_CUMPROD, BETAS, CONTINUOUS, LEVELS, PROCESSES, normal
from scipy.integrate import quad

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


def test_ratio_is_sigma_over_alpha(process):
    for t in times(process):
        torch.testing.assert_close(
            process.noise_to_signal(float(t)), process.sigma(float(t)) / process.alpha(float(t)), rtol=1e-14, atol=0
        )


@pytest.mark.parametrize("level", [0.011, *LEVELS, 79.0])
def test_time_inverts_the_ratio(process, level):
    t = process.time(level)
    assert t.ndim == 0
    assert t.dtype == torch.float64
    assert float(process.noise_to_signal(t)) == pytest.approx(level, rel=1e-10)
    # and the other way round
    assert float(process.time(process.noise_to_signal(float(t)))) == pytest.approx(float(t), rel=1e-10)


def test_the_smallest_and_largest_times_return(process):
    for t in (process.time_min, process.time_max):
        assert float(process.time(process.noise_to_signal(t))) == pytest.approx(t, rel=1e-6)


@pytest.mark.parametrize("name", ["alpha", "sigma", "time", "f", "g2", "noise_to_signal"])
def test_a_batch_of_times_is_each_of_them(process, name):
    batch = times(process) if name != "time" else torch.tensor(LEVELS, dtype=torch.float64)
    together = getattr(process, name)(batch)
    assert together.shape == batch.shape
    assert together.dtype == torch.float64
    alone = torch.stack([getattr(process, name)(float(value)) for value in batch])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=1e-15)
    single = getattr(process, name)(batch[:1].float())  # float32 times are taken, schedules stay float64
    assert single.shape == (1,)
    assert single.dtype == torch.float64


def test_drift_is_the_logarithmic_derivative_of_alpha(process):
    for t in times(process):
        h = 1e-2 if isinstance(process, DiscreteVP) else 1e-4 * float(min(t, 1 - t if process.time_max < 1 else t))
        slope = (process.alpha(t + h).log() - process.alpha(t - h).log()) / (2 * h)
        torch.testing.assert_close(process.f(t), slope, rtol=1e-6, atol=1e-9)


def test_diffusion_feeds_the_variance(process):
    for t in times(process):
        h = 1e-2 if isinstance(process, DiscreteVP) else 1e-4 * float(min(t, 1 - t if process.time_max < 1 else t))
        slope = (process.sigma(t + h) ** 2 - process.sigma(t - h) ** 2) / (2 * h)
        torch.testing.assert_close(process.g2(t), slope - 2 * process.f(t) * process.sigma(t) ** 2, rtol=1e-6, atol=1e-12)


def test_time_zero_is_the_clean_data(process):
    assert float(process.alpha(0.0)) == 1
    assert float(process.sigma(0.0)) == 0
    x = normal(3, 2)
    assert torch.equal(process.noised(x, 0.0, normal(3, 2, seed=1)), x)


def test_transition_from_the_clean_data_is_the_process(process):
    for t in times(process):
        amplitude, deviation = process.transition(0.0, t)
        torch.testing.assert_close(amplitude, process.alpha(t), rtol=1e-13, atol=0)
        torch.testing.assert_close(deviation, process.sigma(t), rtol=1e-12, atol=0)


def test_transition_is_the_marginal_difference(process):
    t = times(process)
    s = t * 0.7
    amplitude, deviation = process.transition(s, t)
    torch.testing.assert_close(amplitude * process.alpha(s), process.alpha(t), rtol=1e-12, atol=0)
    expected = process.sigma(t) ** 2 - amplitude**2 * process.sigma(s) ** 2
    torch.testing.assert_close(deviation**2, expected, rtol=1e-8, atol=1e-13)


def test_transitions_compose(process):
    levels = times(process)
    for s, u, t in zip(levels, levels[1:], levels[2:], strict=False):
        (a_us, d_us), (a_tu, d_tu), (a_ts, d_ts) = process.transition(s, u), process.transition(u, t), process.transition(s, t)
        torch.testing.assert_close(a_tu * a_us, a_ts, rtol=1e-12, atol=0)
        torch.testing.assert_close(a_tu**2 * d_us**2 + d_tu**2, d_ts**2, rtol=1e-11, atol=0)


def test_a_transition_to_itself_does_nothing(process):
    for t in times(process):
        amplitude, deviation = process.transition(t, t)
        assert (float(amplitude), float(deviation)) == (1.0, 0.0)


def pieces(process, s, t):
    """Intervals on which the integrand is smooth."""
    inner = [float(k) for k in range(math.floor(s) + 1, math.ceil(t))] if isinstance(process, DiscreteVP) else []
    corners = [s, *inner, t]
    return pairwise(corners)


def integral(process, function, s, t):
    return sum(quad(lambda tau: float(function(tau)), a, b, epsabs=0, epsrel=1e-11)[0] for a, b in pieces(process, s, t))


@pytest.mark.parametrize("index", range(len(LEVELS)))
def test_score_weight_is_its_integral(process, index):
    t = float(times(process)[index])
    for s in (0.0 if t < 30 else t - 20.2, 0.4 * t if t < 30 else t - 7.0, t * (1 - 1e-3)):
        expected = integral(process, lambda tau: process.alpha(s) / process.alpha(tau) * process.g2(tau), s, t)  # noqa: B023
        assert float(process.integrated_score_weight(s, t)) == pytest.approx(expected, rel=1e-7)


def test_score_weight_of_no_step_is_zero(process):
    t = times(process)
    assert process.integrated_score_weight(t, t).tolist() == [0.0] * len(t)


@pytest.mark.parametrize("index", range(len(LEVELS)))
def test_squared_ratio_grows_by_diffusion_over_signal(process, index):
    t = float(times(process)[index])
    s = 0.6 * t if t < 30 else t - 12.3
    expected = integral(process, lambda tau: process.g2(tau) / process.alpha(tau) ** 2, s, t)
    risen = float(process.noise_to_signal(t) ** 2 - process.noise_to_signal(s) ** 2)
    assert risen == pytest.approx(expected, rel=1e-7)


def test_ratio_rises_strictly(process):
    t = torch.cat([torch.zeros(1), torch.linspace(process.time_min, process.time_max, 5000, dtype=torch.float64)])
    assert bool((process.noise_to_signal(t).diff() > 0).all())


@pytest.mark.parametrize("level", LEVELS)
def test_equal_ratios_are_the_same_experiment(process, level):
    x, z = normal(4, 3), normal(4, 3, seed=1)
    t = process.time(level)
    torch.testing.assert_close(process.noised(x, t, z) / process.alpha(t), x + level * z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("event", [(3,), (1, 2, 2)])
def test_noised_with_a_time_per_row_is_row_by_row(process, dtype, batch, event):
    x, z = normal(batch, *event, dtype=dtype), normal(batch, *event, seed=1, dtype=dtype)
    t = times(process)[:batch]
    together = process.noised(x, t, z)
    assert together.dtype == dtype
    assert together.shape == x.shape
    for row in range(batch):
        alone = process.noised(x[row : row + 1], float(t[row]), z[row : row + 1])
        assert alone.dtype == dtype
        torch.testing.assert_close(together[row : row + 1], alone)


def test_noised_from_a_later_time_uses_the_transition(process):
    s, t = times(process)[1], times(process)[3]
    x, z = normal(3, 2), normal(3, 2, seed=1)
    amplitude, deviation = process.transition(s, t)
    torch.testing.assert_close(process.noised(x, t, z, s), amplitude * x + deviation * z, rtol=1e-13, atol=1e-13)


def test_noised_leaves_its_inputs_alone(process):
    x, z = normal(3, 2), normal(3, 2, seed=1)
    before = x.clone(), z.clone()
    process.noised(x, times(process)[2], z)
    assert torch.equal(x, before[0])
    assert torch.equal(z, before[1])


@pytest.mark.parametrize("count", [2, 4])
def test_a_wrong_number_of_times_is_refused(process, count):
    with pytest.raises(ValueError, match="does not fit a batch of 3"):
        process.noised(normal(3, 2), torch.full((count,), process.time_max), normal(3, 2))


def test_turn_times_inside_are_used(process):
    for t in (process.time_min, process.time_max, *times(process, whole=True).tolist()):
        assert process.turn_time(t) == t


def test_turn_times_within_rounding_of_the_ends_are_the_ends(process):
    assert process.turn_time(process.time_max * (1 + 1e-12)) == process.time_max
    assert process.turn_time(process.time_min * (1 - 1e-12)) == process.time_min


def outside(process):
    return [0.0, -1.0, -process.time_max, process.time_min / 2, process.time_max * 1.001, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("index", range(8))
def test_turn_times_outside_are_refused(process, index):
    with pytest.raises(ValueError, match="lies outside the process"):
        process.turn_time(outside(process)[index])


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1e9, 1e-9, math.nan, math.inf])
def test_ratios_outside_are_refused(process, ratio):
    with pytest.raises(ValueError, match="lies outside the process"):
        process.turn_time_from_noise_to_signal(ratio)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_ratio_asked_for_is_the_ratio_used(name, level):
    process = PROCESSES[name]()
    assert float(process.noise_to_signal(process.turn_time_from_noise_to_signal(level))) == pytest.approx(level, rel=1e-10)


def test_the_extreme_ratios_are_allowed(process):
    for t in (process.time_min, process.time_max):
        assert process.turn_time_from_noise_to_signal(float(process.noise_to_signal(t))) == pytest.approx(t, rel=1e-9)


def test_repr_names_the_range(process):
    assert repr(process).startswith(f"{type(process).__name__}(time_min={process.time_min:g}, time_max={process.time_max:g}")


def test_named_schedules_are_those_of_the_theory():
    t = torch.tensor([0.01, 0.3, 0.8], dtype=torch.float64)
    beta = 0.1 * t + 19.9 * t**2 / 2
    table = [
        (VarianceExploding(), torch.ones(3), t),
        (OrnsteinUhlenbeck(), torch.exp(-t), (1 - torch.exp(-2 * t)).sqrt()),
        (VariancePreserving(), torch.exp(-beta / 2), (1 - torch.exp(-beta)).sqrt()),
        (Cosine(), torch.cos(math.pi * t / 2), torch.sin(math.pi * t / 2)),
        (Rectified(), 1 - t, t),
    ]
    for process, alpha, sigma in table:
        torch.testing.assert_close(process.alpha(t), alpha.double(), rtol=1e-12, atol=0)
        torch.testing.assert_close(process.sigma(t), sigma, rtol=1e-12, atol=0)


def test_discrete_passes_through_its_levels():
    process = DiscreteVP(ALPHAS_CUMPROD)
    k = torch.arange(1, 1001).double()
    torch.testing.assert_close(process.alpha(k) ** 2, torch.from_numpy(ALPHAS_CUMPROD), rtol=1e-12, atol=0)
    torch.testing.assert_close(process.sigma(k) ** 2, 1 - torch.from_numpy(ALPHAS_CUMPROD), rtol=1e-11, atol=0)
    # the rate of the step that ends at a level is minus the logarithm of 1 - beta
    torch.testing.assert_close(process.g2(k), torch.from_numpy(-np.log1p(-BETAS)), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("asked", "used"), [(1.0, 1.0), (1.4, 1.0), (1.6, 2.0), (499.7, 500.0), (999.9, 1000.0), (1000.0, 1000.0)])
def test_discrete_snaps_to_the_nearest_level(asked, used):
    assert DiscreteVP(ALPHAS_CUMPROD).turn_time(asked) == used


def test_discrete_takes_lists_arrays_and_tensors():
    for given in (list(ALPHAS_CUMPROD), ALPHAS_CUMPROD, torch.from_numpy(ALPHAS_CUMPROD)):
        assert float(DiscreteVP(given).alpha(7.0)) == pytest.approx(math.sqrt(ALPHAS_CUMPROD[6]), rel=1e-12)


def test_constant_rate_vp_is_ornstein_uhlenbeck():
    vp, ou = VariancePreserving(2.0, 2.0), OrnsteinUhlenbeck()
    t = torch.tensor([0.01, 0.5, 0.9], dtype=torch.float64)
    for name in ("alpha", "sigma", "f", "g2"):
        torch.testing.assert_close(getattr(vp, name)(t), getattr(ou, name)(t), rtol=1e-12, atol=0)
    torch.testing.assert_close(vp.time(vp.noise_to_signal(t)), t, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda low=low, high=high: VarianceExploding(low, high)
            for low, high in [(0, 1), (-1, 1), (2, 1), (1, 1), (1, math.inf)]
        ),
        lambda: VarianceExploding(math.nan, 1),
        lambda: VarianceExploding(1, math.nan),
        *(lambda kind=kind: kind(0.5, 0.4) for kind in (OrnsteinUhlenbeck, Cosine, Rectified)),
        *(lambda kind=kind: kind(0.0, 0.4) for kind in (OrnsteinUhlenbeck, Cosine, Rectified)),
        *(lambda kind=kind: kind(math.nan, 0.4) for kind in (OrnsteinUhlenbeck, Cosine, Rectified)),
        lambda: OrnsteinUhlenbeck(0.1, math.inf),
        lambda: Cosine(0.1, 1.0),
        lambda: Rectified(0.1, 1.0),
        lambda: Rectified(0.1, math.nan),
        lambda: VariancePreserving(0.0, 1.0),
        lambda: VariancePreserving(2.0, 1.0),
        lambda: VariancePreserving(0.1, math.inf),
        lambda: VariancePreserving(math.nan, 1.0),
        lambda: VariancePreserving(time_min=1.0, time_max=0.5),
        lambda: DiscreteVP([]),
        lambda: DiscreteVP([0.5]),
        lambda: DiscreteVP([0.5, 0.6]),
        lambda: DiscreteVP([0.5, 0.5]),
        lambda: DiscreteVP([1.0, 0.5]),
        lambda: DiscreteVP([0.5, 0.0]),
        lambda: DiscreteVP([0.5, math.nan]),
    ],
)
def test_impossible_processes_are_refused(make):
    with pytest.raises(ValueError, match=r": (swap|give|correct)"):
        make()
