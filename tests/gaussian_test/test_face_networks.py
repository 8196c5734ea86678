"""Runs with networks: detailed balance, the micro-batch that is kept, NaN at a level, G-Turns, the paper's sampler."""

import json
from typing import get_args

import numpy as np
import pytest
import torch
from face_zoo import QUICK, Own

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.analysis.declarations import COMPUTED
from gaussian_test.build.problem import Given, prepare
from gaussian_test.build.scores import BUILDERS
from gaussian_test.experiment import scores
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.result.views import view
from gaussian_test.store.digest import score_digest

SHAPE = (1, 8, 8)
TRUTH = gt.data.load("digits")
GAUSS = gt.analysis.GaussianScore.fit(TRUTH.x)
EMPIRICAL = gt.sampler.EmpiricalScore.fit(TRUTH.x)
SETTINGS = QUICK | {"samples": 64, "scores": [{"kind": "gaussian"}], "turn_times": {"noise_to_signal": [0.5, 1.0, 4.0]}}
SETTINGS |= {"reverse": {"kind": "sde", "clock": "variance", "steps": 24}, "statistics": {"bootstrap": 500}}


def execute(networks=None, output=None, resume=False, **changes):
    return gt.run(SETTINGS | changes, output, scores=networks, resume=resume, progress=False)


def network(function, **options):
    return gt.sampler.NetworkScore.from_callable(function, SHAPE, **options)


def exact(x, t, label):
    return EMPIRICAL.denoise(x, t)


def test_an_exact_score_in_a_networks_clothes_is_in_balance():
    """All three estimators agree: |D|^2 and x0.D everywhere, the simulation too (48 steps in the variance clock)."""
    reverse = {"kind": "sde", "clock": "variance", "steps": 48}
    row = execute({"net": network(exact)}, samples=400, reverse=reverse, seed=1).sel(score="net")
    assert (np.abs(row.balance_squared) <= 4 * row.balance_squared_se).all()
    assert (np.abs(row.balance_simulated) <= 4 * row.balance_simulated_se).all()
    assert (row.balance_squared_low <= 0).all()
    assert (row.balance_squared_high >= 0).all()


def test_a_score_that_is_off_is_seen_to_be():
    """D too large by 5 %: |D|^2 - x0.D of the Gaussian score scaled by c is c (c - 1) C_G, in closed form."""
    mean = torch.from_numpy(TRUTH.x.values.mean(0))
    result = execute({"net": network(lambda x, t, label: mean + 1.05 * (GAUSS.denoise(x, t) - mean))}, samples="all")
    row = result.sel(score="net")
    expected = 1.05 * 0.05 * gt.analysis.autocorrelation_exact(gt.analysis.fit_moments(TRUTH.x).eigenvalues, [0.5, 1.0, 4.0])
    assert (np.abs(row.balance_squared - expected) <= 4 * row.balance_squared_se).all()
    assert float(row.balance_squared_pvalue.min()) < 0.01
    shown = result.gaussian_test.show()
    assert "Detailed balance of net" in shown
    assert "C by three estimators" in shown


# -- conventions ---------------------------------------------------------------------------------------------------------------


COSINE, RECTIFIED = gt.sampler.Cosine(), gt.sampler.Rectified()
LINEAR = gt.sampler.DiscreteVP(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))


def reading(prediction, trained, data_at=0, towards="noise"):
    """The exact score as a network of a convention: time 1 - t where the data is at 1, velocities as they point."""

    def function(x, t):
        t = (1 - t if data_at else t).double()
        alpha, sigma = (value.reshape(-1, 1, 1, 1) for value in (trained.alpha(t), trained.sigma(t)))
        y = x.double() / alpha
        denoised = EMPIRICAL.denoise(y.float(), trained.noise_to_signal(t)).double()
        noise = (y - denoised) * alpha / sigma
        value = {"x0": denoised, "epsilon": noise, "v": alpha * noise - sigma * denoised, "velocity": noise - denoised}[prediction]
        return (-value if towards == "data" and prediction == "velocity" else value).float()

    return function


FLOWS = [("velocity", 0, "noise"), ("velocity", 1, "data"), ("velocity", 0, "data"), ("velocity", 1, "noise")]
FLOWS += [(prediction, data_at, None) for prediction in ("x0", "epsilon", "v") for data_at in (0, 1)]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_flow_is_read_both_ways(flow):
    """t = 0 data or t = 1 data; velocity, x0, noise or v: all the exact score, and refused with the right words if misread."""
    x = torch.from_numpy(TRUTH.x.values[:8]) * 1.5

    def score(prediction, data_at, towards):
        given = {"trained": RECTIFIED, "prediction": prediction, "data_at": data_at, "towards": towards}
        return network(reading(flow[0], RECTIFIED, flow[1], flow[2]), **given)

    for nu in (0.3, 1.0, 5.0):
        torch.testing.assert_close(score(*flow).denoise(x, nu), EMPIRICAL.denoise(x, nu), rtol=2e-3, atol=2e-3)
    prepare(Experiment.load(SETTINGS), given=Given(scores={"net": score(*flow)}))
    default = network(reading(*flow[:1], RECTIFIED, *flow[1:]), trained=RECTIFIED, prediction="velocity", data_at=flow[1])
    points = ("velocity", flow[1], "data" if flow[1] else "noise")
    assert (default.network.sign, default.network.data_at) == (-1 if flow[1] else 1, flow[1])
    for other in FLOWS:
        # v, x0 and noise read as one another may denoise where alpha and sigma are alike, so only flows are all tried
        if other != flow and (other[0] == flow[0] or points == other):
            with pytest.raises(UserError, match=rf"'net' denoises better.*prediction: {flow[0]}, data_at: {flow[1]}") as error:
                prepare(Experiment.load(SETTINGS), given=Given(scores={"net": score(*other)}))
            assert flow[2] is None or f"towards: {flow[2]}" in str(error.value)


@pytest.mark.parametrize("trained", [COSINE, LINEAR, gt.sampler.VarianceExploding(), gt.sampler.VariancePreserving()])
@pytest.mark.parametrize(("predicts", "read"), [("epsilon", "x0"), ("x0", "epsilon"), ("v", "epsilon"), ("x0", "v")])
def test_a_prediction_that_is_taken_for_another_is_refused_with_the_right_one(predicts, read, trained):
    given = Given(scores={"net": network(reading(predicts, trained), trained=trained, prediction=read)})
    with pytest.raises(UserError, match=rf"'net' denoises better.* times if read with prediction: {predicts}"):
        prepare(Experiment.load(SETTINGS), given=given)


def test_standard_normal_data_show_a_wrong_sign_too():
    truth = TRUTH.assign(x=(TRUTH.x.dims, np.random.default_rng(0).normal(size=TRUTH.x.shape).astype(np.float32)))

    def velocity(x, t):
        t = t.reshape(-1, 1, 1, 1)
        return (2 * t - 1) / ((1 - t) ** 2 + t**2) * x

    prepare(Experiment.load(SETTINGS), given=Given(truth, {"net": network(velocity, trained=RECTIFIED, prediction="velocity")}))
    wrong = network(velocity, trained=RECTIFIED, prediction="velocity", towards="data")
    with pytest.raises(UserError, match=r"prediction: velocity, data_at: [01], towards"):
        prepare(Experiment.load(SETTINGS), given=Given(truth, {"net": wrong}))


def test_a_network_that_denoises_in_no_reading_runs_and_is_said_not_to():
    result = execute({"mine": network(lambda x, t: 30 + 0 * x), "right": network(exact)})
    said = [note for note in view(result).notes() if "does not denoise" in note]
    assert len(said) == 1
    assert said[0].startswith("Note: mine does not denoise")


class Steps(torch.nn.Module):
    """A network with an embedding of its steps: noise of the exact score of the digits at the level of its step."""

    def __init__(self, first=0, steps=1000, labelled=False):
        super().__init__()
        table = torch.tensor([float(LINEAR.noise_to_signal(k)) for k in range(1, steps + 1)])
        self.levels = torch.nn.Embedding.from_pretrained(torch.cat([torch.zeros(first), table])[:, None])
        self.seen = []

    def forward(self, x, t):
        self.seen += t.tolist()
        nu = self.levels(t).reshape(-1)
        scaled = x * (1 + nu**2).sqrt().reshape(-1, 1, 1, 1)
        return (scaled - EMPIRICAL.denoise(scaled, nu)) / nu.reshape(-1, 1, 1, 1)


WHOLE = {"trained": LINEAR, "prediction": "epsilon", "timesteps": "integer"}


@pytest.mark.parametrize("first", [0, 1])
def test_a_network_of_whole_steps_is_asked_at_the_nearest(first):
    score, x = network(Steps(first), first=first, **WHOLE), torch.from_numpy(TRUTH.x.values[:4]) * 1.2
    for k in (1, 2, 300, 1000):
        nu = float(LINEAR.noise_to_signal(k))
        torch.testing.assert_close(score.denoise(x, nu), EMPIRICAL.denoise(x, nu), rtol=1e-3, atol=1e-3)
    del score.network.inner.seen[:]
    score.denoise(x[:2], torch.tensor([float(LINEAR.noise_to_signal(t)) for t in (300.4, 300.6)]).double())
    assert score.network.inner.seen == [299 + first, 300 + first]


def test_whole_steps_that_are_moved_are_said():
    result = execute({"net": network(Steps(), **WHOLE)}, reverse={"kind": "sde", "steps": 6}, samples=16)
    moved = json.loads(result.attrs["network_settings"])["net"]["levels_moved"]
    assert 0.001 < moved < 0.5
    assert f"net was asked at the nearest of the whole steps that it takes, off by up to {moved:.1%}" in result.gaussian_test.show()
    own = {"kind": "discrete_vp", "alphas_cumprod": LINEAR.log_alpha_bar[1:].exp().tolist()}
    score = network(Steps(), process=LINEAR, **WHOLE)
    result = execute({"net": score}, reverse={"kind": "ancestral", "steps": 6}, samples=16, process=own)
    assert "levels_moved" not in json.loads(result.attrs["network_settings"])["net"]
    assert "nearest of the whole steps" not in result.gaussian_test.show()


def table(x, t, label=None):
    return torch.linspace(0.1, 1, 1000)[t].reshape(-1, 1, 1, 1) * x


@pytest.mark.parametrize(
    ("function", "given", "said"),
    [
        (Steps(), {"trained": LINEAR, "prediction": "epsilon"}, "takes whole steps for its time.* add timesteps: integer"),
        (table, {"trained": LINEAR}, "takes whole steps for its time.* add timesteps: integer"),
        (table, {}, "takes whole steps for its time.* trained: {kind: discrete_vp, ...}"),
        (Steps(), WHOLE | {"first": 1}, r"fails at its last step 1000 \(IndexError.*with first: 0 its steps are 0 to 999"),
        (Steps(steps=999), WHOLE, "fails at its last step 999 .*correct first or 'trained'"),
    ],
)
def test_whole_steps_are_asked_for_in_a_sentence(function, given, said):
    with pytest.raises(UserError, match=said):
        prepare(Experiment.load(SETTINGS), given=Given(scores={"net": network(function, **given)}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"timesteps": "integer"}, "say which, with trained: {kind: discrete_vp"),
        ({"first": 1, "trained": COSINE}, "say which, with trained: {kind: discrete_vp"),
        ({"data_at": 1}, "data_at = 1 is for times from 0 to 1"),
        ({"data_at": 1, "trained": LINEAR}, "data_at = 1 is for times from 0 to 1"),
        ({"towards": "data"}, "towards = 'data' is of a velocity, and prediction is 'x0'"),
        ({"conditional": True, "classes": 3}, r"this one takes \(x, t\)"),
    ],
)
def test_conventions_that_contradict_each_other_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        network(lambda x, t: x, **given)


@pytest.mark.parametrize(
    "function", [lambda x, t: x / 2, lambda x, t, label: x / 2, lambda *given: given[0] / 2, lambda x, t, *, scale=0.5: scale * x]
)
def test_a_network_may_do_without_the_label(function):
    torch.testing.assert_close(network(function).denoise(torch.ones(2, *SHAPE), 1.0), torch.full((2, *SHAPE), 0.5))


def test_the_discretisation_error_is_taken_out_of_the_balance():
    """Six Euler-Maruyama steps are far from continuous time; the Gaussian score is in balance through them all the same."""
    net = network(lambda x, t, label: GAUSS.denoise(x, t))
    row = execute({"net": net}, samples="all", reverse={"kind": "sde", "clock": "time", "steps": 6}).sel(score="net")
    assert (np.abs(row.balance_simulated) <= 4 * row.balance_simulated_se).all()
    raw = row.autocorrelation - row.autocorrelation_one_shot
    assert (np.abs(raw) > 6 * row.balance_simulated_se).any()


@pytest.mark.parametrize("reverse", [{"kind": "heun", "steps": 8}, {"kind": "edm", "S_churn": 8.0, "steps": 8}])
def test_balance_of_the_simulation_is_undefined_without_the_reverse_sde(reverse):
    result = execute({"net": network(exact)}, reverse=reverse)
    assert np.isnan(result.balance_simulated).all()
    assert "detailed balance holds for the reverse SDE alone" in result.balance_simulated.attrs["reason"]
    assert np.isfinite(result.balance_squared).all()
    shown = result.gaussian_test.show()
    assert ("with churn the auto-correlation belongs to the sampler" in shown) == (reverse["kind"] == "edm")


def test_the_micro_batch_is_in_the_archive_and_a_resumed_run_keeps_it(tmp_path, monkeypatch, interrupt):
    """auto times once; a run that goes on takes the size of its finished shards, and ends in the same bits."""
    sizes = iter([5, 7, 11])
    monkeypatch.setattr(gt.sampler, "fastest_micro_batch", lambda *arguments: next(sizes))

    class Linear(torch.nn.Linear):
        def forward(self, x, t, label):
            return super().forward(x.flatten(1)).reshape(x.shape) / 10

    net = network(Linear(64, 64))
    settings = {"samples": 12, "shard_size": 4, "reverse": {"kind": "euler", "steps": 3}}
    left_alone = execute({"net": net}, tmp_path / "a.nc", **settings)
    assert set(left_alone.micro_batch.sel(score="net").values) == {5}
    assert (left_alone.micro_batch.sel(score="gaussian") == 1024).all()
    interrupt(2)
    with pytest.raises(KeyboardInterrupt):
        execute({"net": net}, tmp_path / "b.nc", **settings)
    assert (tmp_path / "b.nc.parts").is_dir()
    resumed = execute({"net": net}, tmp_path / "b.nc", resume=True, **settings)
    assert set(resumed.micro_batch.sel(score="net").values) == {7}  # not 11: timed once
    np.testing.assert_array_equal(resumed.sample, left_alone.sample)


def test_memory_that_runs_out_is_told_and_its_micro_batch_kept(caplog):
    """The shard in which it happens is run again, so that all of it is of the one size that the archive names."""

    class Hungry(torch.nn.Module):
        sizes, full = [], False

        def forward(self, x, t, label):
            Hungry.full |= len(self.sizes) > 20
            if len(x) > 6 and Hungry.full:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.sizes.append(len(x))
            return GAUSS.denoise(x, t)

    result = execute({"net": network(Hungry(), micro_batch=16)}, samples=32, shard_size=16)
    kept = result.micro_batch.sel(score="net").values
    assert len(set(kept)) == 1
    assert max(kept) <= 6
    assert "out of memory with" in caplog.text
    again = execute({"net": network(lambda x, t, label: GAUSS.denoise(x, t), micro_batch=int(kept[0]))}, samples=32, shard_size=16)
    np.testing.assert_array_equal(result.autocorrelation.sel(score="net"), again.autocorrelation.sel(score="net"))

    def late(x, t):
        """Have memory for the two states of the probe only."""
        if len(x) > 2:
            raise torch.OutOfMemoryError("none left")
        return x

    with pytest.raises(UserError, match=r"memory ran out \(none left\): give a smaller shard_size or micro_batch"):
        execute({"net": Own(late)})


def test_a_network_knows_itself_by_weights_and_settings():
    """Whatever decides the result decides the digest."""

    def digest(prediction="x0", share=0.5, trained=None, **options):
        module = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(module.weight, share)
        module.forward = lambda x, t, label: module.weight * x
        return score_digest(network(module, prediction=prediction, trained=trained, **({"classes": 3} | options)))

    variants = [
        {},
        {"share": 0.25},
        {"prediction": "v"},
        {"trained": gt.sampler.Cosine()},
        {"trained": gt.sampler.NumericSchedule(lambda t: (1 - t, t))},
        {"guidance": 2.0, "conditional": True, "classes": 10},
        {"autocast": "bfloat16"},
        {"channels_last": True},
        {"micro_batch": 3},
    ]
    digests = [digest(**variant) for variant in variants]
    assert len(set(digests)) == len(variants)
    assert digest() == digests[0]


@pytest.mark.parametrize("step", [3, 9, -2])
def test_nan_at_one_level_stops_the_run_with_that_level_and_keeps_the_finished_shards(step, tmp_path):
    """NaN at one level of the grid on the way down: that level is named, not the turn that suffers from it."""
    settings = {"samples": 12, "shard_size": 4, "turn_times": {"noise_to_signal": [0.5, 1.0, 8.0]}}
    bad = float(prepare(Experiment.load(SETTINGS | settings)).plan.grid[step])

    class Broken(torch.nn.Module):
        calls = 0

        def forward(self, x, t, label):
            Broken.calls += 1
            hit = (((t / bad - 1).abs() < 1e-5) & (torch.arange(len(x)) % 3 == 0)).reshape(-1, 1, 1, 1)  # a few of its states
            return torch.where(hit & torch.tensor(Broken.calls > 40), torch.nan, GAUSS.denoise(x, t))

    with pytest.raises(UserError, match=rf"'net' returned NaN or infinite values at noise-to-signal {bad:.4g}: ") as error:
        execute({"net": network(Broken(), micro_batch=64)}, tmp_path / "run.nc", **settings)
    assert "kept" in str(error.value)
    assert not (tmp_path / "run.nc").exists()
    assert len(list((tmp_path / "run.nc.parts").glob("shard-*.part"))) >= 1


def test_a_g_turn_starts_from_the_matched_gaussian_at_every_time():
    """Mean and covariance of the states at the turn: those of the noised data, within 5 standard errors of each entry."""
    prepared = prepare(Experiment(start="gaussian", samples=4000, turn_times={"noise_to_signal": [0.3, 2.0]}))
    samples = tuple(prepared.samples.tolist())
    x0 = prepared.starts(samples)
    torch.testing.assert_close(x0[7:9], prepared.starts((7, 8)))  # keyed by the number of the draw alone
    sigma = prepared.reference.moments.covariance()
    for state in prepared.plan.run(x0, samples, {}, {}):
        for block, level in zip(state.x, state.times, strict=True):
            x = block.flatten(1).double().numpy()
            expected = sigma + level**2 * np.eye(64)
            error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / len(x))
            assert (np.abs(np.cov(x.T) - expected) <= 5 * error).all()
            mean = prepared.reference.moments.mean.reshape(-1)
            assert (np.abs(x.mean(0) - mean) <= 5 * np.sqrt(np.diag(expected) / len(x))).all()


@pytest.mark.parametrize(
    ("start", "reverse"),
    [
        ("gaussian", {"kind": "auto"}),
        ("gaussian", {"kind": "heun", "steps": 5}),
        ("isotropic", {"kind": "auto"}),
        ("isotropic", {"kind": "sde", "steps": 5}),
    ],
)
def test_end_points_of_the_gaussian_score_have_the_variance_of_the_closed_form(start, reverse):
    """However few the steps: the closed form goes through the very steps simulated."""
    result = execute(start=start, samples=3000, shard_size=500, reverse=reverse)
    row = result.sel(score="gaussian")
    assert (np.abs(row.end_square - row.end_square_discrete) <= 4 * row.end_square_se).all()
    if start == "gaussian" and reverse["kind"] == "auto":
        np.testing.assert_allclose(row.end_square_discrete, 1, rtol=1e-9)
        assert (np.abs(row.autocorrelation - row.autocorrelation_exact) <= 4 * row.autocorrelation_se).all()
    if start == "isotropic":
        assert (np.abs(row.end_square_discrete - 1) > 1e-4).all()  # noise alone does not forget the mean at once


def test_a_start_without_samples_has_the_same_layout_and_its_own_words(tmp_path):
    """What it leaves undefined stands in test_face_records.py."""
    scores = [{"kind": "empirical"}, {"kind": "gaussian"}]
    settings = {"scores": scores, "reverse": {"kind": "auto"}, "keep": {"pictures": 2}}
    turn = execute(output=tmp_path / "u.nc", **settings)
    other = execute(output=tmp_path / "g.nc", start="isotropic", **settings)
    assert {name: other[name].dims for name in other.variables} == {name: turn[name].dims for name in turn.variables}
    assert (other.label == -1).all()
    assert (other.close_share.sel(score="empirical") == 1).all()  # the empirical score only knows its samples
    assert (other.close_share.sel(score="gaussian", turn_time=4.0) < 0.1).all()
    assert "the start of this run holds no data" in other.gaussian_test.show()
    drawn = set(other.gaussian_test.plot())
    assert drawn >= {"end_points", "pictures"}
    assert "gap" not in drawn


def test_a_g_turn_draws_the_classes_that_it_conditions_on():
    """In the shares of the data, whatever the order of the file, keyed by the number of the draw, and kept in the archive."""
    order = np.argsort(TRUTH.label.values, kind="stable")
    truth = TRUTH.isel(sample=order)
    settings = SETTINGS | {"start": "gaussian", "scores": [{"kind": "empirical", "conditional": True}], "reverse": {"kind": "auto"}}
    many, few = (gt.run(settings | {"samples": count}, truth=truth, progress=False) for count in (400, 20))
    assert (many.label_after.isel(score=0, repeat=0) == many.label).all()  # the score ends in samples of the class it was given
    np.testing.assert_array_equal(many.label[:20], few.label)
    expected = np.bincount(TRUTH.label.values) / TRUTH.sizes["sample"]
    shares = np.bincount(many.label.values, minlength=10) / 400
    assert (np.abs(shares - expected) <= 4 * np.sqrt(expected * (1 - expected) / 400)).all()


def test_the_papers_preset_is_edms_sampler_on_its_own_grid():
    prepared = prepare(Experiment(samples=4, reverse={"preset": "paper"}, turn_times={"noise_to_signal": [0.5, 3.0, 20.0]}))
    kernel, plan = prepared.kernels["gaussian"], prepared.plan
    assert (kernel.steps, kernel.S_churn, kernel.S_min, kernel.S_max, kernel.S_noise) == (256, 40, 0.05, 50, 1.003)
    levels = gt.sampler.edm_levels(256)
    np.testing.assert_allclose(plan.grid, levels[levels <= plan.levels[-1] * (1 + 1e-12)], rtol=1e-12)
    assert set(plan.levels) <= set(plan.grid.tolist())
    for level, asked in zip(plan.levels, (0.5, 3.0, 20.0), strict=True):
        assert abs(np.log(level / asked)) == pytest.approx(np.abs(np.log(levels[:-1] / asked)).min())


@pytest.mark.parametrize(
    ("reverse", "start"),
    [
        ({"preset": "paper", "steps": 12}, "noised_data"),
        ({"kind": "sde", "grid": "process", "steps": 9}, "gaussian"),
        ({"kind": "auto"}, "noised_data"),
    ],
)
def test_the_pictures_are_the_end_points_of_the_table(reverse, start):
    """C of the first samples recomputed from the pictures, which are of the first repeat."""
    result = execute(samples=6, repeats=2, reverse=reverse, start=start, keep={"pictures": 3})
    pictures, moments = result.gaussian_test.group("pictures"), gt.analysis.fit_moments(TRUTH.x)
    if start == "noised_data":
        np.testing.assert_array_equal(pictures.start, TRUTH.x[pictures.sample])
    ends = (pictures.end.sel(score="gaussian").values - moments.mean).reshape(-1, 3, 64)
    starts = (pictures.start.values - moments.mean).reshape(1, 3, 64)
    table = result.sample_autocorrelation.sel(score="gaussian").isel(repeat=0, sample=slice(3)).values
    np.testing.assert_allclose((ends * starts).sum(2) / moments.trace, table, atol=1e-5)


def test_churn_of_a_score_in_a_narrower_process_stops_where_that_stops():
    """The churn stops at the largest time of the process, whatever process the score was built in."""
    process = {"kind": "variance_exploding", "sigma_max": 4.0}
    reverse = {"kind": "edm", "steps": 4, "S_churn": 8.0}
    wide, narrow = (
        execute({"net": network(exact, process=gt.sampler.VarianceExploding(0.002, end))}, process=process, reverse=reverse)
        for end in (80.0, 4.0)
    )
    np.testing.assert_array_equal(wide["sample_autocorrelation"], narrow["sample_autocorrelation"])


def test_what_is_given_beside_a_preset_wins_in_any_order():
    for changes in (["reverse.preset=paper", "reverse.steps=32"], ["reverse.steps=32", "reverse.preset=paper"]):
        reverse = Experiment.load(changes=changes).reverse
        assert (reverse.kind, reverse.steps, reverse.S_churn, reverse.grid) == ("edm", 32, 40.0, "process")


def test_turn_times_that_were_moved_are_said():
    result = execute(reverse={"preset": "paper", "steps": 32}, turn_times={"noise_to_signal": [0.5, 3.0]})
    moved = max(abs(np.log(result.noise_to_signal.values / [0.5, 3.0])))
    assert result.attrs["turn_time_moved"] == pytest.approx(np.expm1(moved))
    assert "turn times were moved to the nearest levels" in result.gaussian_test.show()
    assert "turn times were moved" not in execute().gaussian_test.show()


def test_churn_of_the_paper_is_held_against_its_own_closed_form():
    """With churn C is the sampler's: the simulated Gaussian follows the discretised closed form and not the process's."""
    reverse = {"preset": "paper", "steps": 32}
    row = execute(samples="all", shard_size=600, reverse=reverse).sel(score="gaussian")
    assert (np.abs(row.autocorrelation - row.autocorrelation_discrete) <= 4 * row.autocorrelation_se).all()
    ode = gt.analysis.autocorrelation_exact(gt.analysis.fit_moments(TRUTH.x).eigenvalues, row.noise_to_signal, flow="ode")
    assert (np.abs(row.autocorrelation_discrete - ode) > 10 * row.autocorrelation_se).any()


def test_churn_beyond_the_networks_training_is_refused():
    """The turn at 4 is within its range; where the churn rises to is not."""
    score = gt.sampler.NetworkScore(lambda x, t, label: x / 2, SHAPE, noise_range=(0.002, 4.1))
    execute({"net": score}, reverse={"kind": "edm", "steps": 8, "S_churn": 0.0})
    with pytest.raises(UserError, match=r"score 'net': noise-to-signal ratio 5 is outside the 0.002 to 4.1"):
        execute({"net": score}, reverse={"kind": "edm", "steps": 8, "S_churn": 2.0}, process={"sigma_max": 80.0})
    result = execute({"net": score}, reverse={"kind": "edm", "steps": 8, "S_churn": 2.0})  # it stops at the automatic limit
    assert result.attrs["process_limits"] == "noise-to-signal 0.002 to 4.1, which net was trained for"
    assert (score.process.time_max, score.noise_range) == (80.0, (0.002, 4.1))


def test_python_scores_condition_on_the_class_where_they_say_so():
    """D shifted by the label: the one-evaluation estimator shows which label came."""

    def shifted(x, t, label):
        assert label is not None
        return 0 * x + label.reshape(-1, 1, 1, 1)

    score = network(shifted, classes=10, label_free=False, conditional=True)
    row = execute({"net": score}, samples=6).sel(score="net").isel(repeat=0)
    moments = gt.analysis.fit_moments(TRUTH.x)
    labels = TRUTH.label.values[row.sample.values]
    expected = [((label - moments.mean) ** 2).sum() / moments.trace for label in labels]
    np.testing.assert_allclose(row.sample_autocorrelation_one_shot_squared.isel(turn_time=0), expected, rtol=1e-5)
    with pytest.raises(UserError, match="score 'net': this network cannot be called without labels"):
        execute({"net": network(exact, classes=10, label_free=False)})


def test_every_kind_of_score_is_a_network_or_computed_from_the_samples():
    """Each kind is in the table of scores that are computed, which all views take for such, or is a network with a constructor."""
    kinds = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(get_args(scores.ScoreSettings)[0])}
    networks = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(scores.AnyNetwork)}
    assert kinds - networks == set(BUILDERS)
    assert tuple(BUILDERS) == COMPUTED
    assert all(hasattr(gt.sampler.NetworkScore, f"from_{kind}") for kind in networks - {"network"})
