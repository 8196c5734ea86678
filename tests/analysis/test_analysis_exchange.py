"""Exchangeability of start and end: levels under exact balance, power when it is broken, statistics against plain sums."""

from itertools import product

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import cdist
from scipy.stats import binomtest, permutation_test

from gaussian_test.analysis.declarations import reasons_of
from gaussian_test.analysis.observables.balance import exchange
from gaussian_test.analysis.observables.balance.exchange import antisymmetric, class_symmetry, energy_symmetry, exchange_tests

SPECTRUM = 4 / (1 + np.arange(6.0)) ** 1.5
SHARES = np.array([0.5, 0.3, 0.15, 0.05])
ZEROS = np.zeros((3, 2))
CENTERS = np.random.default_rng(99).normal(size=(4, 3)) * 1.5


def _gaussian(rng, starts, nu, repeats=1):
    """Draw starts of a Gaussian and their exact U-Turns."""
    gain = SPECTRUM / (SPECTRUM + nu**2)
    x = rng.normal(size=(starts, 6)) * np.sqrt(SPECTRUM)
    return x, gain * x[:, None] + np.sqrt(SPECTRUM * (1 - gain**2)) * rng.normal(size=(starts, repeats, 6))


def _mixture(rng, starts, nu, repeats=1, variance=0.3):
    """Draw starts of a mixture with their classes, and their exact U-Turns: component first."""
    label = rng.choice(4, p=SHARES, size=starts)
    x = CENTERS[label] + np.sqrt(variance) * rng.normal(size=(starts, 3))
    turn = x[:, None] + nu * rng.normal(size=(starts, repeats, 3))
    logits = np.log(SHARES) - ((turn[:, :, None] - CENTERS) ** 2).sum(-1) / (2 * (variance + nu**2))
    after = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
    gain = variance / (variance + nu**2)
    noise = np.sqrt(variance * (1 - gain)) * rng.normal(size=turn.shape)
    return x, CENTERS[after] + gain * (turn - CENTERS[after]) + noise, label, after


def test_level_is_exact():
    """Log-normal pairs of 30 starts with 4 repeats, and classes of which one is rare: 600 tests reject 5 % +- 3 errors."""
    rejected = np.zeros(3)
    for seed in range(600):
        x, e = _gaussian(np.random.default_rng([1, seed]), 30, 1.0, repeats=4)
        x, e = np.exp(0.7 * x), np.exp(0.7 * e)
        *_, label, after = _mixture(np.random.default_rng([2, seed]), 200, 2.0, repeats=2)
        rejected += [
            antisymmetric(x, e, draws=199, seed=seed).pvalue <= 0.05,
            energy_symmetry(x, e, draws=199, seed=seed).pvalue <= 0.05,
            class_symmetry(label, after, 4, draws=199, seed=seed).pvalue <= 0.05,
        ]
    assert (np.abs(rejected / 600 - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 600)).all(), rejected


def test_starts_drawn_without_replacement_make_the_tests_conservative():
    """All samples of a set as starts, ends drawn by the exact posterior of their empirical score: at most 5 % + 3 errors."""
    rng = np.random.default_rng(3)
    x = rng.exponential(size=(80, 2))
    square = ((x[:, None] - x) ** 2).sum(-1)
    rejected = 0
    for seed in range(300):
        turn = x + rng.normal(size=x.shape)
        logits = -(((turn[:, None] - x) ** 2).sum(-1)) / 2
        end = x[(logits + rng.gumbel(size=square.shape)).argmax(1)]
        rejected += antisymmetric(x, end[:, None], draws=199, seed=seed).pvalue <= 0.05
    assert rejected / 300 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def _rotation(angle):
    """Turn the first two features, in units of their standard deviations: the end's own law stays the same."""
    turned, ratio = np.eye(6), np.sqrt(SPECTRUM[0] / SPECTRUM[1])
    turned[:2, :2] = [[np.cos(angle), np.sin(angle) / ratio], [-np.sin(angle) * ratio, np.cos(angle)]]
    return turned


@pytest.mark.parametrize(
    ("broken", "nu", "largest"),
    [
        (lambda e: 0.95 * e, 0.3, "squared norm"),
        (lambda e: e * (1 + 0.2 * np.eye(6)[3]), 0.3, "square of feature 3"),
        (lambda e: e + 0.4 * np.eye(6)[2], 1.0, "mean of feature 2"),
        (lambda e: e @ _rotation(0.3), 0.5, "current 0-1"),
    ],
    ids=["shrunk by 5 %", "one feature wider", "drift", "rotation"],
)
def test_broken_balance_is_seen_and_named(broken, nu, largest):
    """Of 512 starts, in at least 9 of 10 repetitions, where 1 would be chance."""
    seen = 0
    for seed in range(10):
        x, e = _gaussian(np.random.default_rng([4, seed]), 512, nu)
        test = antisymmetric(x, broken(e), draws=199, seed=seed)
        seen += test.pvalue <= 0.05 and test.largest == largest
        assert abs(test.mean) > 2 * test.standard_error
    assert seen >= 9


def test_broken_balance_is_seen_by_the_energy_distance_and_in_classes():
    """A drift, a rotation, and half of the ends in one class sent to another: in at least 9 of 10 repetitions each."""
    seen = np.zeros(3)
    for seed in range(10):
        rng = np.random.default_rng([5, seed])
        x, e = _gaussian(rng, 300, 0.3)
        _, _, label, after = _mixture(rng, 512, 1.0)
        after = np.where((after == 2) & (rng.random(after.shape) < 0.5), 0, after)
        seen += [
            energy_symmetry(x, e + 0.15, draws=199, seed=seed).pvalue <= 0.05,
            energy_symmetry(x, e @ _rotation(0.2), draws=199, seed=seed).pvalue <= 0.05,
            class_symmetry(label, after, 4, draws=199, seed=seed).pvalue <= 0.05,
        ]
    assert (seen >= 9).all()


def test_two_classes_are_the_binomial_test():
    """McNemar: of 14 + 5 transitions the p-value is binomial, within 4 standard errors of 20000 draws."""
    label = np.repeat([0, 1, 0, 1], [14, 5, 20, 30])
    after = np.repeat([1, 0, 0, 1], [14, 5, 20, 30])[:, None]
    test = class_symmetry(label, after, 2, draws=20000)
    expected = binomtest(14, 19).pvalue
    assert test.statistic == pytest.approx(81 / 19, rel=1e-12)
    assert abs(test.pvalue - expected) < 4 * np.sqrt(expected / 20000)


def test_bowkers_statistic_is_the_sum_over_pairs_of_classes():
    rng = np.random.default_rng(7)
    label, after = rng.integers(0, 5, 400), rng.integers(0, 5, (400, 1))
    counts = np.zeros((5, 5))
    np.add.at(counts, (label, after[:, 0]), 1)
    expected = sum((counts[a, b] - counts[b, a]) ** 2 / (counts[a, b] + counts[b, a]) for b in range(5) for a in range(b))
    assert class_symmetry(label, after, 5).statistic == pytest.approx(expected, rel=1e-12)
    # classes that are far apart in number, and never met, change nothing
    assert class_symmetry(1000 * label, 1000 * after, 4001).statistic == pytest.approx(expected, rel=1e-12)


def _largest(x, e, axis):
    """Return the largest |t| of drifts and of the current between two features, rows along the last axis."""
    center = (x + e).mean(-1, keepdims=True) / 2
    a, b = x - center, e - center
    squares = b**2 - a**2
    current = a[..., :1, :] * b[..., 1:, :] - b[..., :1, :] * a[..., 1:, :]
    values = np.concatenate([b - a, squares, squares.sum(-2, keepdims=True), current], axis=-2)
    return (np.abs(values.sum(-1)) / np.sqrt((values**2).sum(-1))).max(-1)


def test_moments_are_the_exact_paired_permutation_test(monkeypatch):
    """All 2^9 swaps of 9 pairs, by scipy; 20000 draws come within 4 standard errors of its p-value."""
    rng = np.random.default_rng(8)
    x, e = rng.normal(size=(2, 9, 2)) + np.array([0.0, 0.3])[:, None, None]
    test = antisymmetric(x, e[:, None], draws=20000)
    # scipy swaps whole pairs where both features of one are numbered together
    pairs = np.arange(9.0)

    def statistic(chosen, other, axis):
        first = chosen < 9
        rows = (chosen % 9).astype(int)
        a, b = np.where(first[..., None], x[rows], e[rows]), np.where(first[..., None], e[rows], x[rows])
        return _largest(np.moveaxis(a, -1, -2), np.moveaxis(b, -1, -2), axis)

    exact = permutation_test(
        (pairs, pairs + 9), statistic, permutation_type="samples", alternative="greater", vectorized=True, n_resamples=np.inf
    )
    assert test.statistic == pytest.approx(float(exact.statistic), rel=1e-12)
    assert abs(test.pvalue - exact.pvalue) < 4 * np.sqrt(exact.pvalue / 20000)
    monkeypatch.setattr(exchange, "BLOCK_ELEMENTS", 50)
    assert antisymmetric(x, e[:, None], draws=20000).pvalue == test.pvalue


def _energies(x, e):
    """Return the distances of pairs from swapped pairs, less those from pairs."""
    pairs = np.hstack([x, e])
    return cdist(pairs, np.hstack([e, x])) - cdist(pairs, pairs)


def test_energy_statistic_is_the_energy_distance_of_the_swapped_pairs(monkeypatch):
    """Also of every second start, where there are more than it takes."""
    x, e = _gaussian(np.random.default_rng(9), 99, 1.0)
    x, e = x + 5, e + 5.2
    assert energy_symmetry(x, e).statistic == pytest.approx(2 * _energies(x, e[:, 0]).mean(), rel=1e-9)
    monkeypatch.setattr(exchange, "ENERGY_STARTS", 50)
    assert energy_symmetry(x, e).statistic == pytest.approx(2 * _energies(x[::2], e[::2, 0]).mean(), rel=1e-9)


def test_energy_pvalue_is_that_of_all_swaps(monkeypatch):
    """All 2^9 orientations of 9 pairs; 20000 draws come within 4 standard errors, multiplied in blocks of 2."""
    monkeypatch.setattr(exchange, "ENERGY_BLOCK", 2)
    rng = np.random.default_rng(10)
    x, e = rng.normal(size=(2, 9, 3)) + np.array([0.0, 0.4])[:, None, None]
    signs = np.array(list(product([1, -1], repeat=9)))
    every = np.einsum("si,ij,sj->s", signs, _energies(x, e), signs)
    expected = (every >= every[0] * (1 - 1e-9)).mean()
    assert 0.01 < expected < 0.5
    assert abs(energy_symmetry(x, e[:, None], draws=20000).pvalue - expected) < 4 * np.sqrt(expected / 20000)


def test_swapping_all_pairs_changes_no_statistic():
    x, e = _gaussian(np.random.default_rng(11), 100, 1.0)
    for test in (antisymmetric, energy_symmetry):
        forth, back = test(x, e), test(e[:, 0], x[:, None])
        assert forth.statistic == pytest.approx(back.statistic, rel=1e-9)
        assert forth.pvalue == back.pvalue
    assert antisymmetric(x, e).mean == pytest.approx(-antisymmetric(e[:, 0], x[:, None]).mean, rel=1e-9)


def test_units_do_not_matter():
    """Moments are free of each feature's unit and origin; the energy distance of rotations, and is in the features' unit."""
    x, e = _gaussian(np.random.default_rng(12), 100, 1.0)
    scale, shift = np.geomspace(0.1, 10, 6), np.arange(6.0)
    plain, moved = antisymmetric(x[:, :1], e[..., :1]), antisymmetric(7 * x[:, :1] + 3, 7 * e[..., :1] + 3)
    assert moved.statistic == pytest.approx(plain.statistic, rel=1e-9)
    assert moved.pvalue == plain.pvalue
    single = antisymmetric(x * scale + shift, (e + np.eye(6)[1]) * scale + shift)
    assert single.largest == "mean of feature 1"
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    turned, energy = energy_symmetry(3 * x @ rotation, 3 * e @ rotation), energy_symmetry(x, e)
    assert turned.statistic == pytest.approx(3 * energy.statistic, rel=1e-9)
    assert turned.pvalue == energy.pvalue


def test_what_does_not_move_is_exchangeable():
    x, _ = _gaussian(np.random.default_rng(13), 50, 1.0)
    for test in (antisymmetric(x, x[:, None]), energy_symmetry(x, x[:, None]), class_symmetry([0, 1, 2], [[0], [1], [2]], 3)):
        assert (test.statistic, test.pvalue, test.largest) == (0.0, 1.0, "")


def test_rounding_is_no_move():
    """End points that come back in float32, 99 of them to their start: neither their drift nor its sign is seen."""
    x = np.random.default_rng(17).normal(size=(100, 4)) + 3
    e = x * (1 + 1e-6)
    e[0] += 1
    for test in (antisymmetric, energy_symmetry):
        assert test(x, e[:, None], draws=199).pvalue == 1
    start = xr.DataArray(x, dims=("sample", "feature"))
    end = xr.DataArray(e[None, None, :, None], dims=("score", "turn_time", "sample", "repeat", "feature"))
    result = exchange_tests(start, end, draws=199)
    assert result.exchange_moments_pvalue == result.exchange_energy_pvalue == 1


def test_a_few_moves_cannot_be_significant():
    """Three starts moved alike: a quarter of all swaps is as large, whatever the rounding."""
    x, e = np.zeros((2, 200, 2))
    e[:3] = np.random.default_rng(16).uniform(0.9, 1.1, size=(3, 2))
    for test in (antisymmetric(x, e[:, None], draws=4000), energy_symmetry(x, e[:, None], draws=4000)):
        assert abs(test.pvalue - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)


@pytest.fixture(scope="module")
def pairs():
    """Pairs of a mixture at two turn times and for two scores, the second of which drifts."""
    runs = [_mixture(np.random.default_rng(15), 300, nu, repeats=2) for nu in (0.5, 2.0)]
    ends = np.stack([np.stack([e for _, e, _, _ in runs]), np.stack([e + 0.3 for _, e, _, _ in runs])])
    after = np.stack([np.stack([a for *_, a in runs])] * 2)
    coords = {"score": ["exact", "drifting"], "turn_time": [0.5, 2.0]}
    rows = ("score", "turn_time", "sample", "repeat")
    # the same starts at every turn time: the generators begin alike
    return (
        xr.DataArray(runs[0][0], dims=("sample", "feature")),
        xr.DataArray(ends, dims=(*rows, "feature"), coords=coords),
        xr.DataArray(runs[0][2], dims="sample"),
        xr.DataArray(after, dims=rows, coords=coords),
    )


def test_dataset_holds_the_tests_of_every_score_and_turn_time(pairs):
    start, end, label, after = pairs
    mixed = [values.transpose(..., "sample", "score", "turn_time") for values in (end, after)]
    result = exchange_tests(start, mixed[0], label, mixed[1], draws=199, seed=3)
    assert list(result.sizes) == ["score", "turn_time"]
    for score, turn in product(range(2), range(2)):
        row, e = result.isel(score=score, turn_time=turn), end.values[score, turn]
        moments = antisymmetric(start.values, e, draws=199, seed=3)
        assert row.exchange_moments_pvalue == moments.pvalue
        assert row.exchange_moments_largest == moments.largest
        assert row.exchange_moments_mean == moments.mean
        assert row.exchange_moments_se == moments.standard_error
        energy = energy_symmetry(start.values, e, draws=199, seed=3)
        assert (row.exchange_energy_statistic, row.exchange_energy_pvalue) == (energy.statistic, energy.pvalue)
        classes = class_symmetry(label.values, after.values[score, turn], 4, draws=199, seed=3)
        assert (row.exchange_class_statistic, row.exchange_class_pvalue) == (classes.statistic, classes.pvalue)
    assert (result.exchange_energy_pvalue.sel(score="drifting") <= 0.01).all()
    assert (result.exchange_moments_pvalue.sel(score="exact") > 0.05).all()
    assert not any("reason" in variable.attrs for variable in result.data_vars.values())


def test_undefined_tests_have_reasons(pairs):
    start, end, label, after = pairs
    nothing = exchange_tests(start, end, label - 5, after, draws=9)
    assert nothing.exchange_class_pvalue.isnull().all()
    assert reasons_of(nothing.exchange_class_pvalue) == {"": "the data set has no labels"}
    assert nothing.exchange_moments_pvalue.notnull().all()
    alone = exchange_tests(start, end, 0 * label, 0 * after, draws=9)
    assert reasons_of(alone.exchange_class_statistic) == {"": "the data set has a single class"}
    lost, unknown = end.copy(), after.copy()
    lost[1, 0, 5, 0, 2] = np.nan
    unknown[0, 1, 7, 0] = -1
    result = exchange_tests(start, lost, label, unknown, draws=9)
    assert result.exchange_energy_pvalue.isnull().values.tolist() == [[False, False], [True, False]]
    assert result.exchange_class_pvalue.isnull().values.tolist() == [[False, True], [True, False]]
    assert result.exchange_moments_largest.values[1, 0] == ""
    assert reasons_of(result.exchange_moments_mean) == {"drifting": "end points are not finite"}
    reasons = {"exact": "end points without a class", "drifting": "end points are not finite"}
    assert reasons_of(result.exchange_class_pvalue) == reasons


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_symmetry([0, 1, -1], [[0], [0], [0]], 2), r"label -1 is not one of 2 classes: give integers from 0 to 1"),
        (lambda: class_symmetry([0, 1, 1], [[0], [0], [2]], 2), r"label 2 is not one of 2 classes"),
        (lambda: class_symmetry([0, 1, 1], [0, 1, 1], 2), r"give \(n,\) and \(n, repeats\)"),
        (lambda: antisymmetric(ZEROS, ZEROS), r"give \(n, features\) and \(n, repeats, features\)"),
        (lambda: energy_symmetry(ZEROS, np.full((3, 1, 2), np.inf)), r"NaN or infinite values"),
        (lambda: energy_symmetry(ZEROS[:1], ZEROS[:1, None]), r"1 starts and 999 draws make no test"),
        (lambda: antisymmetric(ZEROS, ZEROS[:, None], draws=0), r"3 starts and 0 draws make no test"),
    ],
)
def test_what_makes_no_test_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
