"""Turn times that nobody gave follow the data: their scale does not matter, all three times are between two of them."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from face_zoo import QUICK

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.analysis import GaussianScore, pilot_levels
from gaussian_test.sampler import NetworkScore

DIGITS = gt.data.load("digits").load()
SPECTRA = {"steep": np.geomspace(4, 1e-6, 50), "flat": np.ones(20), "single": [0.3]}
SETTINGS = {"samples": 64, "observables": "none", "keep": {"pictures": 0}, "statistics": {"bootstrap": 100}}


def scaled(factor, dtype=np.float32):
    return DIGITS.assign(x=(DIGITS.x * dtype(factor)).astype(dtype))


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("third", [0.0, 1e-3, 7.0])
def test_levels_are_dense_around_the_predicted_times_whatever_their_scale(spectrum, third):
    values = np.array(SPECTRA[spectrum])
    levels = pilot_levels(values, 100, third)
    times = [gt.analysis.predicted_memorization(values, 100), np.sqrt(values.max())]
    times += [gt.analysis.predicted_affine(third, values.sum(), tolerance=0.02)] * (third > 0)
    assert levels.shape == (24,)
    assert levels[[0, -1]] == pytest.approx([0.2 * min(times), 6 * max(times)], rel=1e-12)
    ratios = np.diff(np.log(levels))
    for time in times:  # steps are at most half of the widest
        assert ratios[np.searchsorted(levels, time) - 1] <= 0.55 * ratios.max()
    for factor in (2.0**-40, 2.0**17):
        np.testing.assert_array_equal(pilot_levels(values * factor**2, 100, third * factor**6), factor * levels)
    np.testing.assert_allclose(pilot_levels(values * 1e6, 100, third * 1e18), 1000 * levels, rtol=1e-12)
    finer = pilot_levels(values, 100, third, levels=47)
    np.testing.assert_allclose(finer[::2], levels, rtol=1e-6)  # quantiles of one density
    low, high = levels[5] * 1.01, levels[15]
    np.testing.assert_array_equal(pilot_levels(values, 100, third, within=(low, high)), [low, *levels[6:16]])
    assert pilot_levels(values, 100, third, levels=1).shape == (1,)
    with pytest.raises(ValueError, match="which process and scores cover"):
        pilot_levels(values, 100, third, within=(1e9, 2e9))


@pytest.fixture(scope="module")
def plain():
    return gt.run(SETTINGS, truth=DIGITS, progress=False)


@pytest.mark.parametrize(("factor", "rtol"), [(1024.0, 0), (2.0**-9, 0), (1000.0, 1e-4), (1e-3, 1e-4)])
def test_the_unit_of_the_data_is_that_of_the_experiment(factor, rtol, plain):
    found = gt.run(SETTINGS, truth=scaled(factor), progress=False)
    np.testing.assert_allclose(found["noise_to_signal"] / factor, plain["noise_to_signal"], rtol=rtol and 1e-6)
    for name in ("sample_autocorrelation", "sample_autocorrelation_one_shot", "autocorrelation", "gap"):
        np.testing.assert_allclose(found[name], plain[name], rtol=0, atol=rtol * 20)
    for name in ("memorization", "speciation", "affine"):
        of = f"{name}_noise_to_signal"
        np.testing.assert_allclose(found[of] / factor, plain[of], rtol=rtol or 1e-12)


def test_all_three_times_of_the_digits_lie_between_close_levels():
    found = gt.run({"samples": "all", "observables": "none"}, progress=False).sel(score="empirical")
    levels = found["noise_to_signal"].values
    for name in ("memorization", "speciation", "affine"):
        above = np.searchsorted(levels, found[f"{name}_noise_to_signal"].item())
        assert 1 < levels[above] / levels[above - 1] < 1.17


def test_a_level_in_another_unit_is_refused_before_any_run():
    with pytest.raises(UserError, match=r"turn_times: noise-to-signal 1e\+06 is more than 10,000 times .* in the units"):
        gt.run({**SETTINGS, "turn_times": {"noise_to_signal": [1e6]}}, truth=DIGITS, progress=False)
    with pytest.raises(UserError, match="more than 10,000 times"):
        gt.run({**SETTINGS, "turn_times": {"noise_to_signal": [1.0]}}, truth=scaled(1e-6), progress=False)


def test_the_levels_of_a_run_stay_where_it_is_resumed_with_another_tolerance(tmp_path):
    settings = QUICK | {"turn_times": "auto", "samples": 16, "shard_size": 8}
    first = gt.run(settings, tmp_path / "a.nc", progress=False)
    (tmp_path / "b.nc.parts").mkdir()

    def stop(event):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gaussian_test.store.archive.write", lambda *_: stop(None))
        with pytest.raises(KeyboardInterrupt):
            gt.run(settings, tmp_path / "b.nc", progress=False, resume=True)
    resumed = gt.run(settings | {"statistics": {"tolerance": 1e-4}}, tmp_path / "b.nc", resume=True, progress=False)
    np.testing.assert_array_equal(resumed["noise_to_signal"], first["noise_to_signal"])
    other = gt.run(settings | {"statistics": {"tolerance": 1e-4}}, progress=False)
    assert not np.array_equal(other["noise_to_signal"], first["noise_to_signal"])


def test_levels_and_limits_lie_within_what_a_network_was_trained_for():
    exact = GaussianScore.fit(DIGITS.x)
    network = NetworkScore(lambda x, t, label: exact.denoise(x, t), (1, 8, 8), noise_range=(0.5, 4.0))
    found = gt.run(SETTINGS, truth=DIGITS, scores={"net": network}, progress=False)
    assert found["noise_to_signal"].values[[0, -1]] == pytest.approx([0.5, 4.0], rel=1e-6)
    assert "net was trained for" in found.attrs["process_limits"]


@pytest.mark.parametrize("kind", ["ornstein_uhlenbeck", "variance_preserving", "cosine", "rectified"])
def test_processes_share_the_levels_that_all_of_them_cover(kind, plain):
    found = gt.run({**SETTINGS, "process": {"kind": kind}}, truth=DIGITS, progress=False)
    np.testing.assert_allclose(found["noise_to_signal"], plain["noise_to_signal"], rtol=1e-5)


def test_data_without_any_third_cumulant_have_levels():
    x = np.random.default_rng(0).choice([-1.0, 1.0], (64, 5))
    truth = xr.Dataset({"x": (("sample", "feature"), np.concatenate([x, -x]))})
    found = gt.run(SETTINGS, truth=truth, progress=False)
    assert np.isfinite(found["noise_to_signal"]).all()


def same(a, b):
    """Assert that two results have the same numbers, in all variables."""
    assert set(a.variables) == set(b.variables)
    for name in a.variables:
        np.testing.assert_array_equal(a[name].values, b[name].values, str(name))


REFINED = QUICK | {
    "samples": 48,
    "shard_size": 16,
    "scores": [{"kind": "empirical"}, {"kind": "network", "micro_batch": 64}, {"kind": "gaussian"}],
    "turn_times": {"noise_to_signal": {"min": 0.2, "max": 12, "count": 7}, "refine": 0.05},
    "reverse": {"steps": 12},
}


@pytest.fixture(scope="module")
def refined():
    return gt.run(REFINED, progress=False)


def test_every_time_lies_between_levels_as_close_as_asked_and_all_is_as_if_these_were_given(refined):
    levels, found = refined["noise_to_signal"].values, 0
    for name in ("memorization", "speciation", "affine"):
        for time in refined[f"{name}_noise_to_signal"].values:
            if np.isfinite(time):
                above, found = np.searchsorted(levels, time), found + 1
                assert levels[above] / levels[above - 1] <= 1.05 + 1e-5
    assert found >= 6
    assert refined.attrs["turn_times_added"] == len(levels) - 7 < 12 * found
    assert "turn times were added, for each time to lie between two at most 5% apart" in refined.gaussian_test.show()
    np.testing.assert_array_equal(np.isin(np.geomspace(0.2, 12, 7).astype("f4"), levels.astype("f4")), True)
    given = REFINED | {"turn_times": {"time": refined["turn_time"].values.tolist()}}
    same(refined, gt.run(given, progress=False))


@pytest.mark.parametrize("shards", [1, 3, 4, 6])
def test_an_interrupted_run_with_refined_levels_resumes_to_the_same_bits(shards, refined, interrupt, tmp_path):
    path = tmp_path / "a.nc"
    interrupt(shards)
    with pytest.raises(KeyboardInterrupt):
        gt.run(REFINED, path, progress=False)
    resumed = gt.run(REFINED, path, resume=True, progress=False)
    same(resumed, refined)
    same(gt.run(REFINED, path, resume=True, progress=False), refined)  # finished, so it is opened
    with pytest.raises(UserError, match="seed differs"):
        gt.run(REFINED | {"seed": 1}, path, resume=True, progress=False)


def test_workers_refine_to_the_same_levels(tmp_path):
    settings = QUICK | {"samples": 16, "shard_size": 8, "turn_times": {"noise_to_signal": [0.3, 1, 8], "refine": 0.2}}
    same(gt.run(settings, tmp_path / "a.nc", workers=2, progress=False), gt.run(settings, threads=1, progress=False))


def test_levels_of_a_fixed_grid_are_not_refined():
    with pytest.raises(UserError, match=r"turn_times.refine adds levels, and those of reverse.grid = 'process' are fixed"):
        gt.run({"turn_times": {"refine": 0.1}, "reverse": {"preset": "paper"}}, progress=False)
    with pytest.raises(UserError, match="1000 turn times: give a larger share"):
        gt.run(QUICK | {"samples": 8, "turn_times": {"noise_to_signal": [0.01, 80], "refine": 0.005}}, progress=False)


@pytest.mark.parametrize("manifest", [True, False], ids=["manifest kept", "manifest lost"])
def test_a_run_killed_among_the_parts_of_two_grids_resumes_to_the_same_bits(manifest, tmp_path, monkeypatch):
    """The manifest names the refined grid, and one of the parts of the first is gone."""
    settings = QUICK | {"samples": 32, "shard_size": 8, "turn_times": {"noise_to_signal": [0.3, 1, 8], "refine": 0.2}}
    genuine, gone = Path.unlink, []

    def unlink(self, missing_ok=False):
        gone.extend([self] * (self.suffix == ".part"))
        if len(gone) == 2:
            raise KeyboardInterrupt
        genuine(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            gt.run(settings, tmp_path / "a.nc", progress=False)
    assert len(list((tmp_path / "a.nc.parts").glob("*.part"))) == 3
    if not manifest:
        (tmp_path / "a.nc.parts" / "manifest.json").unlink()
    same(gt.run(settings, tmp_path / "a.nc", resume=True, progress=False), gt.run(settings, progress=False))
