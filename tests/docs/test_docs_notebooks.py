"""Every notebook of the docs runs, small, and what it says is what the archive and the laws say."""

from pathlib import Path

import numpy as np
import pytest
from notebook_room import run_notebook

NOTEBOOKS = Path(__file__).resolve().parents[2] / "docs" / "notebooks"


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Return a function that runs a notebook in an empty folder, and sees that it leaves nothing there and warns of nothing."""
    monkeypatch.chdir(tmp_path)

    def run_there(name, parameters, question, drawn):
        answer, ran = run_notebook(NOTEBOOKS / f"{name}.py", parameters, question)
        assert not list(tmp_path.iterdir())
        assert capfd.readouterr().err == ""
        assert ran.figures == drawn
        return answer

    return run_there


def test_digits_in_five_minutes(run):
    """The curve is the mean of the table, and the gap is the squared distance of the scores within its errors."""
    answer = run(
        "digits_in_five_minutes",
        {"SAMPLES": 64, "TURN_TIMES": 8},
        "{'curve': result.autocorrelation.values.tolist(), 'z': z.dropna('turn_time').values.tolist(),"
        " 'mean': result.sample_autocorrelation.mean(('sample', 'repeat')).values.tolist(), 'gap': row.gap.values.tolist()}",
        drawn=3,
    )
    np.testing.assert_allclose(answer["mean"], answer["curve"], atol=1e-12, rtol=0)
    assert len(answer["z"]) >= 6
    assert np.abs(answer["z"]).max() < 4.5
    assert 0.15 < max(answer["gap"]) < 0.4


def test_empirical_network_gaussian(run):
    """The exact score of the training samples denoises these best and others worst, and the network's loss is near on both."""
    answer = run(
        "empirical_network_gaussian",
        {"SAMPLES": 32, "TURN_TIMES": 5, "STEPS": 16, "CHECKED_STEPS": (4, 16)},
        "{'loss': {f'{name} {part}': values.mean(1).tolist() for (name, part), values in loss.items()},"
        " 'close': result.close_share.sel(score='empirical').values.tolist(), 'checks': list(checks.values())}",
        drawn=4,
    )
    loss = {name: np.array(values) for name, values in answer["loss"].items()}
    for other in ("network", "gaussian"):
        assert (loss["empirical training"] < loss[f"{other} training"] * 1.01).all()
        assert (loss["empirical held out"][:3] > 1.5 * loss[f"{other} held out"][:3]).all()
    assert (np.abs(loss["network held out"] / loss["network training"] - 1) < 0.25).all()
    assert answer["close"] == [1.0] * 5  # its ends are samples
    assert answer["checks"][0] < -3 < answer["checks"][1]  # too few steps show


def test_sample_by_sample(run):
    """The times are those of the archive, recomputed from its table, and tell samples apart."""
    answer = run(
        "sample_by_sample",
        {"SAMPLES": 60, "REPEATS": 8, "TURN_TIMES": 12},
        "{'archive': times.values.tolist(), 'recomputed': recomputed.tolist(), 'z': float(z), 'order': [int(i) for i in order]}",
        drawn=4,
    )
    assert answer["recomputed"] == answer["archive"]
    assert answer["z"] > 2
    sorted_times = np.array(answer["archive"])[answer["order"]]
    assert (np.diff(sorted_times) >= 0).all()


def test_archives_with_xarray(run):
    """Curve, standard error, band and closed form come out of the table and the settings in the archive to rounding."""
    answer = run(
        "archives_with_xarray",
        {"SAMPLES": 32, "TURN_TIMES": 5, "STEPS": (4, 8)},
        "{'curve': abs(curve - result.autocorrelation).max().item(),"
        " 'se': abs(standard_error - result.autocorrelation_se).max().item(),"
        " 'low': abs(band.low - row.autocorrelation_low.values).max(),"
        " 'closed': abs(closed - result.autocorrelation_exact.sel(score='gaussian').values).max(),"
        " 'high': abs(band.high - row.autocorrelation_high.values).max(), 'z': z.values.tolist(),"
        " 'runs': [str(run) for run in runs.run.values]}",
        drawn=1,
    )
    assert max(answer[name] for name in ("curve", "se", "low", "high", "closed")) < 1e-12
    assert np.abs(answer["z"]).max() < 4.5
    assert len(answer["runs"]) == 4


def test_which_sampler_how_many_steps(run):
    """A simulation shows the closed form through its own steps; Heun's order is 2, Euler's 1; the variance clock has no bias."""
    answer = run(
        "which_sampler_how_many_steps",
        {"SAMPLES": 128, "STEPS": (16, 32), "DOUBLED": (8,), "SIMULATED_STEPS": 8},
        "{'worst': worst, 'known': known, 'wasserstein': {str(name): study.wasserstein.sel(kernel=name).values.tolist()"
        " for name in study.kernel.values},"
        " 'bias': {name: float(abs(one.sel(score='gaussian').autocorrelation_discrete"
        " - one.sel(score='gaussian').autocorrelation_exact).max()) for name, one in results.items()}}",
        drawn=2,
    )
    assert max(answer["worst"].values()) < 4.5
    assert len(answer["worst"]) == 6
    assert answer["bias"]["euler"] > 0.02  # there was something to predict
    assert answer["bias"]["sde"] < 1e-12
    assert abs(answer["known"]) < 1e-12
    order = {name: np.log2(coarse / fine) for name, (coarse, fine) in answer["wasserstein"].items()}
    assert order["heun"] == pytest.approx(2, abs=0.25)
    assert order["euler"] == pytest.approx(1, abs=0.05)


def test_your_own_network(run):
    """The experiment in YAML gives the table that python gives, and a network without training violates detailed balance."""
    answer = run(
        "your_own_network",
        {"SAMPLES": 64, "TURN_TIMES": 4, "STEPS": 8, "TRAINING": 60, "STOPPED": 3},
        "{'difference': difference, 'violation': {name: float(abs(result.balance_squared.sel(score=name)"
        " / result.balance_squared_se.sel(score=name)).max()) for name in scores}}",
        drawn=2,
    )
    assert answer["difference"] == 0
    assert answer["violation"]["stopped"] > 5


def test_every_notebook_has_its_test():
    names = {path.stem for path in NOTEBOOKS.glob("*.py")}
    assert names == {name.removeprefix("test_") for name in globals() if name.removeprefix("test_") in names}
