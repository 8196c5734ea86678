"""Processes, reverse kernels and observables of a user's: named by a factory, refused where they break a law, known again."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from face_zoo import QUICK, refused

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.build import features
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.store.digest import score_digest
from gaussian_test.sweep.sweep import Sweep

MODULE = '''
import torch
from gaussian_test import sampler


class Noising(sampler.Cosine):
    pass


class Wrong(sampler.Cosine):
    def f(self, t):
        return 1.01 * super().f(t)


class Steps(sampler.ReverseSDE):
    pass


class Clipping(sampler.Ancestral):
    def step(self, score, x, t, s, noise, label=None):
        return super().step(score, x, t, s, noise, label).clamp(-1, 1)


def noising(cls=Noising, **settings):
    return cls(**settings)


def steps(clock="variance"):
    return Steps(clock=clock)


class Beyond(sampler.Ancestral):
    def step(self, score, x, t, s, noise, label=None):
        return super().step(score, x, t, s, noise, label) + 0 * score.denoise(x, t / 2, label)


def churning():
    return sampler.EDMStochastic(8, S_churn=4.0)


def something(**arguments):
    return 3


def contrast(power=2.0):
    def measure(start, end):
        """How far the ends are from grey."""
        return end.flatten(1).abs().pow(power).mean(1)
    measure.units = "grey level"
    return measure


def batched():
    return lambda start, end: end.flatten(1).mean(1) - end.mean()


def undefined():
    return lambda start, end: end.flatten(1).mean(1) / 0


def halving():
    return lambda x, t, label=None: x / 2


def column():
    return lambda start, end: end.flatten(1).mean(1, keepdim=True)
'''

SETTINGS = QUICK | {"samples": 12, "shard_size": 5, "turn_times": {"noise_to_signal": [0.3, 1.0, 4.0]}}
SETTINGS |= {"reverse": {"kind": "sde", "steps": 4}}
PROCESS = {"process": {"kind": "factory", "factory": "own_things:noising", "arguments": {"time_max": 0.99}}}
KERNEL = {"reverse": {"kind": "factory", "factory": "own_things:steps", "steps": 4}}
NETWORK = {"scores": [{"kind": "callable", "name": "mine", "factory": "own_things:halving"}]}
OBSERVABLE = {"custom_observables": {"contrast": {"factory": "own_things:contrast"}}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the current folder, with a module of the user's in it."""
    (tmp_path / "own_things.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_things", None)


def test_a_process_and_a_kernel_of_the_users_run_as_ours_do(folder):
    """A copy of the cosine process and of the SDE under another name: the same numbers to the last bit."""
    own = gt.run(SETTINGS | PROCESS | KERNEL)
    ours = gt.run(SETTINGS | {"process": {"kind": "cosine", "time_max": 0.99}})
    for name in ("turn_time", "autocorrelation", "autocorrelation_discrete", "gap", "balance_simulated", "affine_time"):
        xr.testing.assert_equal(own[name].variable, ours[name].variable)
    assert set(own.kernel.values) == {"own_things:steps"}
    assert "process own_things:noising; reverse: empirical own_things:steps" in own.gaussian_test.show()


def test_the_closed_form_goes_through_the_steps_of_the_users_kernel(folder):
    """Four Euler steps in the time clock are far from continuous time: the simulation agrees with its own steps."""
    settings = SETTINGS | {"samples": "all", "shard_size": 600, "scores": [{"kind": "gaussian"}]}
    settings["reverse"] = {"kind": "factory", "factory": "own_things:steps", "arguments": {"clock": "time"}, "steps": 4}
    row = gt.run(settings).sel(score="gaussian")
    np.testing.assert_array_less(np.abs(row.autocorrelation - row.autocorrelation_discrete), 4 * row.autocorrelation_se)
    np.testing.assert_array_less(np.abs(row.gap), 4 * row.gap_se)
    assert (np.abs(row.autocorrelation_exact - row.autocorrelation_discrete) / row.autocorrelation_se).max() > 8


def test_flow_decides_what_is_defined(folder):
    reverse = {"kind": "factory", "factory": "own_things:churning", "steps": 8}
    result = gt.run(SETTINGS | {"samples": 40, "observables": ["balance"], "reverse": reverse})
    assert np.isnan(result.autocorrelation_exact).all()
    assert np.isfinite(result.autocorrelation_discrete.sel(score="gaussian")).all()
    assert np.isnan(result.balance_simulated).all()
    assert np.isnan(result.exchange_energy_pvalue).all()
    assert "detailed balance holds for the reverse SDE alone" in result.exchange_energy_pvalue.attrs["reason"]
    assert np.isfinite(result.gap.sel(score="empirical")).all()


def test_an_observable_has_its_curve_with_bands_from_the_starts(folder):
    result = gt.run(SETTINGS | OBSERVABLE | {"samples": 40, "repeats": 2})
    rows = result.sample_contrast
    assert rows.dims == ("score", "turn_time", "sample", "repeat")
    np.testing.assert_allclose(result.contrast, rows.mean(("sample", "repeat")), rtol=1e-12)
    of_starts = rows.mean("repeat")
    np.testing.assert_allclose(result.contrast_se, of_starts.std("sample", ddof=1) / np.sqrt(40), rtol=1e-9)
    assert (result.contrast_low < result.contrast).all()
    assert (result.contrast < result.contrast_high).all()
    attributes = {"long_name": "contrast", "units": "grey level", "comment": "How far the ends are from grey."}
    assert {key: result.contrast.attrs[key] for key in attributes} == attributes
    assert result.contrast_low.attrs["long_name"].startswith("contrast, lower edge")
    assert "Custom observable contrast: contrast (grey level)" in result.gaussian_test.show()
    assert "own_contrast" in result.gaussian_test.plot()


def test_an_observable_is_handed_the_starts_and_their_very_ends():
    """The distance of start and end: the ends that the archive keeps, from the samples, in the order of the table."""

    def distance(start, end):
        return (end - start).flatten(1).norm(dim=1)

    settings = SETTINGS | {"repeats": 2, "observables": [], "keep": {"pictures": 0, "end_points": True}}
    result = gt.run(settings, custom_observables={"moved": distance})
    truth = gt.data.load("digits").x
    ends = result.gaussian_test.group("end_points").end
    starts = truth.isel(sample=ends.sample.values)
    moved = np.sqrt(((ends - starts.drop_vars("sample", errors="ignore")) ** 2).sum(("channel", "row", "column")))
    np.testing.assert_allclose(result.sample_moved, moved.transpose("score", "turn_time", "sample", "repeat"), rtol=1e-4, atol=1e-4)
    assert result.moved.attrs["custom_observable"] == "given in python"


def test_observables_of_two_runs_are_compared_start_by_start(folder):
    a, b = (gt.run(SETTINGS | OBSERVABLE | {"reverse": {"kind": kind, "steps": 4}}) for kind in ("heun", "euler"))
    comparison = gt.compare(a, b)
    for name in ("contrast", "autocorrelation"):
        np.testing.assert_allclose(comparison[f"{name}_difference"], (b[name] - a[name]).values, atol=1e-6)
        paired = (b[f"sample_{name}"] - a[f"sample_{name}"]).mean("repeat").transpose("score", "turn_time", "sample")
        error = paired.std("sample", ddof=1) / np.sqrt(12)
        np.testing.assert_allclose(comparison[f"{name}_difference_se"], error, atol=1e-6)
    independent = np.hypot(a.autocorrelation_se, b.autocorrelation_se).values
    assert (comparison.autocorrelation_difference_se < independent / 2).all()


def test_a_curve_that_hardly_varies_has_a_finite_band():
    """Shares of which one start differs: resamples lose all variation, and the band stays finite."""
    table = xr.Dataset({"sample_rare": (("score", "turn_time", "sample", "repeat"), np.zeros((1, 2, 30, 1)))})
    table.sample_rare[0, :, 0, 0] = 1.0
    rare = features.BuiltObservable("rare", lambda start, end: end, "", {"long_name": "rare", "units": "1"}, "").record
    inputs = SimpleNamespace(table=table, resample=lambda count: gt.analysis.ClusterBootstrap(count, 200))
    curves = rare.function(rare.measure)(inputs)[""]
    assert np.isfinite(curves.rare_low).all()
    assert (curves.rare_low < 1 / 30).all()
    assert (curves.rare_high > 1 / 30).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"process": {"kind": "factory", "factory": "own_things:Wrong"}}, r"process: own_things:Wrong: .* breaks 'drift'"),
        ({"process": {"kind": "factory", "factory": "own_things:something"}}, "derived from gaussian_test.sampler.Process"),
        ({"process": {"kind": "factory"}}, "process.factory is missing"),
        ({"process": {"kind": "factory", "factory": "nowhere:x"}}, "nowhere:x failed"),
        ({"reverse": {"kind": "factory", "factory": "own_things:Clipping"}}, r"reverse: own_things:Clipping: .* breaks 'affine'"),
        ({"reverse": {"kind": "factory", "factory": "own_things:something"}}, "derived from gaussian_test.sampler.ReverseKernel"),
        ({"reverse": {"kind": "factory", "factory": "gaussian_test.sampler:ExactReversal"}}, "choose kind: exact"),
        ({"reverse": {"kind": "sde", "factory": "own_things:steps"}}, "belong together"),
        ({"reverse": {"arguments": {"clock": "time"}}}, "arguments are for a factory"),
        ({"custom_observables": {"mine": {"factory": "own_things:batched"}}}, r"custom observable 'mine': .* breaks 'size'"),
        ({"custom_observables": {"mine": {"factory": "own_things:undefined"}}}, r"custom observable 'mine': .* NaN or infinite"),
        ({"custom_observables": {"mine": {"factory": "own_things:column"}}}, r"custom observable 'mine': .* shape \(2, 1\)"),
        ({"custom_observables": {"gap": {"factory": "own_things:contrast"}}}, "'gap' is taken"),
        ({"custom_observables": {"my-own": {"factory": "own_things:contrast"}}}, "cannot name a variable"),
        ({"custom_observables": {"sample_contrast": {"factory": "own_things:contrast"}}}, "cannot name a variable"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence_before_any_work(changes, said, folder):
    before = sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")
    with refused(said):
        gt.run(SETTINGS | changes, folder / "run.nc")
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before


def test_a_kernel_that_asks_a_network_for_what_it_was_not_trained_for_is_refused(folder):
    """Half of the smallest noise level of the process: the exact scores know it, a network of a smaller range does not."""
    net = gt.sampler.NetworkScore(lambda x, t, label: x / 2, (1, 8, 8), noise_range=(0.002, 80.0))
    settings = SETTINGS | {"scores": [{"kind": "gaussian"}], "reverse": {"kind": "factory", "factory": "own_things:Beyond"}}
    with pytest.raises(UserError, match=r"score 'mine': noise-to-signal ratio 0.001 is outside"):
        gt.run(settings, scores={"mine": net})


def test_an_observable_that_fails_on_the_way_stops_the_run_with_its_name():
    """Ends of the Gaussian score are brighter than any sample: what has no number for these passes the trial and fails then."""

    def of_samples_only(start, end):
        values = end.flatten(1).mean(1)
        return torch.where(end.flatten(1).amax(1) > 1.1, torch.nan, values)

    with pytest.raises(UserError, match=r"custom observable 'late': 15 U-Turns gave .* NaN or infinite values"):
        gt.run(SETTINGS, custom_observables={"late": of_samples_only})


def changed(folder, old, new):
    """Change the user's module on disk, as between two runs."""
    path = folder / "own_things.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    sys.modules.pop("own_things")
    for cached in (folder / "__pycache__").glob("*"):
        cached.unlink()


@pytest.mark.parametrize(
    ("settings", "old", "new", "differs"),
    [
        (PROCESS, "return cls(**settings)", "return sampler.Rectified(**settings)", "process"),
        (KERNEL, "return Steps(clock=clock)", "return sampler.Ancestral()", "reverse"),
        (NETWORK, "label=None: x / 2", "label=None: x / 3", "score mine"),  # it has no tensors: by the file of its factory
        (OBSERVABLE, ".abs().pow(power)", ".abs().pow(power).mul(2)", "custom observable contrast"),
    ],
)
def test_a_changed_function_of_the_same_name_is_not_taken_for_the_old_one(settings, old, new, differs, folder):
    settings = SETTINGS | settings
    gt.run(settings, "run.nc")
    sys.modules.pop("own_things")
    assert gt.run(settings, "run.nc", resume=True).sizes["sample"] == 12
    changed(folder, old, new)
    with pytest.raises(UserError, match=rf"\({differs} differs\)"):
        gt.run(settings, "run.nc", resume=True)


def test_an_observable_from_python_says_who_it_is_before_a_run_is_resumed(tmp_path):
    def mine(start, end):
        return end.flatten(1).mean(1)

    gt.run(SETTINGS, tmp_path / "run.nc", custom_observables={"mine": mine})
    with pytest.raises(UserError, match="attribute 'digest'"):
        gt.run(SETTINGS, tmp_path / "run.nc", custom_observables={"mine": mine}, resume=True)
    mine.digest = "first"
    gt.run(SETTINGS, tmp_path / "named.nc", custom_observables={"mine": mine})
    assert "mine" in gt.run(SETTINGS, tmp_path / "named.nc", custom_observables={"mine": mine}, resume=True)
    mine.digest = "second"
    with pytest.raises(UserError, match="custom observable mine differs"):
        gt.run(SETTINGS, tmp_path / "named.nc", custom_observables={"mine": mine}, resume=True)
    with pytest.raises(UserError, match="custom_observables from python cannot be sent to workers"):
        gt.run(SETTINGS, tmp_path / "other.nc", custom_observables={"mine": mine}, workers=1)


def test_a_process_of_the_users_may_hold_anything():
    """Attributes that are no numbers, such as functions, have other addresses in every process: the numbers decide."""

    class Holding(gt.sampler.Cosine):
        def __init__(self):
            super().__init__()
            self.function = lambda t: t

    one, other = (gt.sampler.EmpiricalScore(torch.eye(3), process=Holding()) for _ in range(2))
    assert score_digest(one) == score_digest(other)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of Dask's sockets
def test_workers_make_the_same_of_them(folder):
    """In another process, from the module in the current folder: the same archive but for its date."""
    settings = SETTINGS | PROCESS | KERNEL | OBSERVABLE
    apart = gt.run(settings, "workers.nc", workers=1, progress=False)
    here = gt.run(settings, "here.nc", threads=1, progress=False)
    assert apart.drop_attrs(deep=False).identical(here.drop_attrs(deep=False))
    assert apart.attrs["identity"] == here.attrs["identity"]


def test_they_are_swept_and_read_back():
    reverse = {"ours": {"kind": "sde"}, "mine": {"kind": "factory", "factory": "own_things:steps"}}
    sweep = Sweep.load({"sweep": {"reverse": reverse, "process.kind": ["cosine", "rectified"]}})
    assert sweep.runs["reverse=mine,process.kind=cosine"].reverse.factory == "own_things:steps"
    own = Experiment.load(SETTINGS | PROCESS | KERNEL | OBSERVABLE)
    assert Experiment.load(yaml.safe_load(own.to_yaml())) == own


def test_the_study_of_samplers_has_the_users_kernel(folder):
    study = gt.samplers(Experiment.load(SETTINGS | KERNEL), steps=[4])
    np.testing.assert_array_equal(study.wasserstein.sel(kernel="own_things:steps"), study.wasserstein.sel(kernel="sde"))


# -- latents -------------------------------------------------------------------------------------------------------------------


HALVES = """
import torch

BASIS = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))[0][:, :16]

def encode(**_):
    return lambda x: (2 * x.flatten(1) @ BASIS).reshape(-1, 1, 4, 4)

def decode(**_):
    return lambda z: (z.flatten(1) @ BASIS.T / 2).reshape(-1, 1, 8, 8)

def drawing():
    return lambda x: torch.randn(len(x), 3)

def narrow():
    return lambda z: z

def failing():
    return lambda z: z @ torch.zeros(3)

def number():
    return 3

def brightness():
    return lambda start, end: end.flatten(1).mean(1) * (1 if end.shape[1:] == (1, 8, 8) else torch.nan)
"""


@pytest.fixture
def autoencoder(tmp_path, monkeypatch):
    name = f"my_latents_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(HALVES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return name


def test_u_turns_run_in_latents_and_pictures_are_decoded(autoencoder):
    """The run of the latents is that of the latents handed in; what is shown is decoded."""
    truth = gt.data.load("digits")
    settings = {"samples": 8, "turn_times": {"noise_to_signal": [0.3, 2.0]}, "observables": "none", "keep": {"pictures": 3}}
    settings |= {"custom_observables": {"brightness": {"factory": f"{autoencoder}:brightness"}}, "statistics": {"bootstrap": 100}}
    space = {"encode": f"{autoencoder}:encode", "decode": f"{autoencoder}:decode"}
    result = gt.run(settings | {"space": space}, progress=False)
    there = __import__(autoencoder)
    latents = there.encode()(torch.from_numpy(truth.x.values))
    plain = {key: value for key, value in settings.items() if key != "custom_observables"}
    handed_in = gt.run(plain, truth=truth.assign(x=(truth.x.dims, latents.numpy())).drop_attrs(), progress=False)
    np.testing.assert_array_equal(result.sample_autocorrelation, handed_in.sample_autocorrelation)
    pictures, others = (one.gaussian_test.group("pictures") for one in (result, handed_in))
    ends = there.decode()(torch.from_numpy(others.end.values.reshape(-1, 1, 4, 4))).reshape(pictures.end.shape)
    np.testing.assert_allclose(pictures.end, ends, atol=1e-6)
    assert np.isfinite(result.brightness).all()
    assert f"ran in latents by {autoencoder}:encode, shape (1, 4, 4)" in result.gaussian_test.show()
    assert "pictures" in result.gaussian_test.plot()


@pytest.mark.parametrize(
    ("encode", "decode", "said"),
    [
        ("drawing", "decode", "space.encode gives other latents each time"),
        ("encode", "narrow", r"space.decode gave \(2, 1, 4, 4\) for samples of shape \(2, 1, 8, 8\)"),
        ("encode", "failing", r"space.decode fails on a batch of shape \(2, 1, 4, 4\)"),
        ("number", "decode", "number gave a int: give a function of a batch"),
        ("absent", "decode", "absent failed"),
    ],
)
def test_latents_that_do_not_fit_are_refused(encode, decode, said, autoencoder):
    space = {"encode": f"{autoencoder}:{encode}", "decode": f"{autoencoder}:{decode}"}
    with pytest.raises(gt.UserError, match=said):
        gt.run({"samples": 8, "space": space}, progress=False)


@pytest.mark.filterwarnings("ignore")
def test_the_autoencoder_of_diffusers_is_a_space(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: make test installs it")
    from gaussian_test.build.space import kl_decoder, kl_encoder

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 4}
    vae = diffusers.AutoencoderKL(
        1, 1, block_out_channels=(4, 4), latent_channels=2, scaling_factor=0.3, shift_factor=0.1, **blocks
    )
    vae.eval().save_pretrained(tmp_path)
    x = torch.from_numpy(gt.data.load("digits").x.values[:4])
    with torch.no_grad():
        latents = (vae.encode(x).latent_dist.mean - 0.1) * 0.3
        torch.testing.assert_close(kl_encoder(str(tmp_path))(x), latents)
        torch.testing.assert_close(kl_decoder(str(tmp_path))(latents), vae.decode(latents / 0.3 + 0.1).sample)
    module = "gaussian_test.build.space"
    space = {"encode": f"{module}:kl_encoder", "decode": f"{module}:kl_decoder", "arguments": {"path": str(tmp_path)}}
    few = gt.data.load("digits").isel(sample=slice(40))
    result = gt.run({"samples": 4, "space": space, "observables": "none"}, truth=few, progress=False)
    assert result.gaussian_test.group("pictures").end.shape[-3:] == (1, 8, 8)
