"""Adapters against the real libraries: diffusers' and azula's own models, schedulers and samplers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
import xarray as xr
from network_zoo import BASIS, EVENT, MEAN, SPECTRUM, LinearDenoiser, LinearDiffusers, LinearEDM, exact
from sampler_zoo import normal

import gaussian_test as gt
from gaussian_test.build.problem import prepare
from gaussian_test.engine.cluster import absolute
from gaussian_test.sampler import Ancestral, DiscreteVP, NetworkScore, Noise, ProbabilityFlow, ReverseSDE, VarianceExploding

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: make test installs it")
azula = pytest.importorskip("azula", reason="azula is not installed: make test installs it")
from azula.denoise import GaussianDenoiser, KarrasDenoiser, SimpleDenoiser  # noqa: E402
from azula.linalg.covariance import FullCovariance  # noqa: E402
from azula.noise import CosineSchedule, DecaySchedule, RectifiedSchedule, VESchedule, VPSchedule  # noqa: E402
from azula.sample import DDIMSampler, EulerSampler, HeunSampler, ItoSampler  # noqa: E402

BARE = {"keep": {"pictures": 0}, "observables": "none", "statistics": {"bootstrap": 100}}
SCHEDULES = {
    "ve": lambda: VESchedule(0.002, 100.0),
    "vp": VPSchedule,
    "cosine": CosineSchedule,
    "rectified": RectifiedSchedule,
    "decay": DecaySchedule,
}


def unet(**changes):
    torch.manual_seed(0)
    blocks = {"block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "AttnDownBlock2D")}
    blocks |= {"up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 4, "layers_per_block": 1}
    return diffusers.UNet2DModel(sample_size=8, in_channels=1, **(blocks | {"out_channels": 1} | changes)).eval()


def process_of(scheduler):
    return DiscreteVP(scheduler.alphas_cumprod)


# -- one Gaussian in the clothes of three libraries ----------------------------------------------------------------------------


def gaussian_azula(schedule):
    """azula's own analytic denoiser."""
    return GaussianDenoiser(MEAN, FullCovariance(BASIS.reshape(*EVENT, 8), SPECTRUM), schedule)


class LinearBackbone(torch.nn.Module):
    """The optimal denoiser of the same Gaussian as a network inside azula's SimpleDenoiser."""

    def __init__(self):
        super().__init__()
        self.denoiser = LinearDenoiser()

    def forward(self, x, t):
        nu = t.exp()
        return self.denoiser(x * torch.sqrt(1 + nu**2), nu)


@pytest.fixture(scope="module")
def truth():
    """Samples whose mean and covariance are exactly the zoo's, and which are not Gaussian."""
    rng = np.random.default_rng(0)
    raw = rng.exponential(size=(600, 8)) - 1
    raw = (raw - raw.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(raw.T, bias=True)).T)
    x = raw @ (BASIS.numpy() * np.sqrt(SPECTRUM.numpy())).T + MEAN.numpy().reshape(-1)
    return xr.Dataset({"x": (("sample", "channel", "row", "column"), x.reshape(600, *EVENT))})


@pytest.mark.parametrize(
    ("reverse", "dtype"),
    [({"kind": "sde", "clock": "variance", "steps": 24}, "float32"), ({"kind": "heun", "steps": 16}, "float64")],
)
def test_a_gaussian_optimal_network_has_the_closed_form_whatever_its_clothes(truth, reverse, dtype):
    """All adapters: C(T) within 4 standard errors of the closed form, and within 1e-5 of each other."""
    scheduler, linear = diffusers.DDPMScheduler(), LinearDenoiser()
    alphas_cumprod = scheduler.alphas_cumprod.double()
    process = DiscreteVP(alphas_cumprod)
    scores = {
        "edm": NetworkScore.from_edm(LinearEDM(), process),
        "diffusers": NetworkScore.from_diffusers(LinearDiffusers(alphas_cumprod), scheduler, process),
        "azula": NetworkScore.from_azula(SimpleDenoiser(LinearBackbone(), VPSchedule()), EVENT, process),
        "callable": NetworkScore.from_callable(
            lambda x, t, label: linear(x, t), EVENT, process, trained=VarianceExploding(1e-3, 1e3)
        ),
    }
    experiment = {"process": {"kind": "discrete_vp", "alphas_cumprod": alphas_cumprod.tolist()}, "scores": [{"kind": "gaussian"}]}
    experiment |= {"turn_times": {"noise_to_signal": [0.1, 0.5, 1.0, 3.0, 20.0]}, "reverse": reverse, "dtype": dtype}
    experiment |= {"samples": 600, "shard_size": 600, **BARE}
    result = gt.run(experiment, truth=truth, scores=scores, progress=False)
    closed = result.autocorrelation_discrete.sel(score="gaussian")
    for name in scores:
        row = result.sel(score=name)
        assert (np.abs(row.autocorrelation - closed) <= 4 * row.autocorrelation_se).all(), name
        for variable in ("sample_autocorrelation", "sample_autocorrelation_one_shot"):
            ours, reference = row[variable].values, result[variable].sel(score="edm").values
            scale = np.abs(reference).max(axis=(1, 2), keepdims=True)
            assert (np.abs(ours - reference) <= 1e-5 * scale).all(), (name, variable)
        assert np.isfinite(row.balance_squared_pvalue).all()
        assert row.balance_squared_pvalue.min() > 0.01


# -- diffusers ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_unet_is_called_as_its_scheduler_would(prediction):
    """D is the scheduler's own pred_original_sample, whatever the prediction type that is read from it."""
    model, scheduler = unet(), diffusers.DDPMScheduler(clip_sample=False, prediction_type=prediction)
    score = NetworkScore.from_diffusers(model, scheduler, process_of(scheduler))
    x = normal(3, 1, 8, 8).float()
    for k in (0, 10, 200, 500, 999):
        with torch.no_grad():
            expected = scheduler.step(model(x, k).sample, k, x).pred_original_sample
        torch.testing.assert_close(score.denoise(x, k + 1.0), expected, rtol=2e-4, atol=2e-4 * float(expected.abs().max()))


DDIM = {"set_alpha_to_one": False, "timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("kind", "settings", "width", "levels", "kernel"),
    [
        (diffusers.DDPMScheduler, {"variance_type": "fixed_small"}, 1, (1, 300, 999), Ancestral()),
        (diffusers.DDIMScheduler, DDIM, 20, (199, 999), ProbabilityFlow("euler")),
    ],
)
def test_ancestral_steps_are_diffusers_ddpm_steps_and_euler_steps_ddims(kind, settings, width, levels, kernel):
    """The same state, network and noise: DDPMScheduler.step with the posterior variance, or DDIMScheduler.step of 50 steps."""
    model, scheduler = unet(), kind(clip_sample=False, **settings)
    score = NetworkScore.from_diffusers(model, scheduler, process_of(scheduler))
    scheduler.set_timesteps(1000 // width)
    x = normal(2, 1, 8, 8).float()
    for k in levels:
        given, ours = (torch.Generator().manual_seed(k) for _ in range(2))
        with torch.no_grad():
            expected = scheduler.step(model(x, k).sample, k, x, generator=given).prev_sample
        noise = Noise(torch.randn(x.shape, generator=ours), torch.zeros(2).double())
        step = kernel.step(score, x, k + 1.0, k + 1.0 - width, noise)
        torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_runs_in_the_process_of_its_own_training(tmp_path):
    """discrete_vp with the pipeline's scheduler: turn times are its levels, and it is asked for whole steps only."""
    model, scheduler = unet(), diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=100)
    diffusers.DDPMPipeline(model, scheduler).save_pretrained(tmp_path)
    result = gt.run(
        {
            "process": {"kind": "discrete_vp", "scheduler": str(tmp_path)},
            "scores": [{"kind": "diffusers", "path": str(tmp_path), "micro_batch": 16}],
            "turn_times": {"noise_to_signal": [0.3, 2.0]},
            "reverse": {"kind": "ancestral", "steps": 6},
            "samples": 4,
            **BARE,
        },
        progress=False,
    )
    alpha_bar = scheduler.alphas_cumprod.double().numpy()
    levels = np.sqrt((1 - alpha_bar) / alpha_bar)
    nearest = [np.abs(np.log(levels / nu)).argmin() + 1 for nu in (0.3, 2.0)]
    assert np.abs(result.turn_time.values - nearest).max() <= 1  # the nearest in the time of the process
    np.testing.assert_allclose(result.noise_to_signal, levels[result.turn_time.values.astype(int) - 1], rtol=1e-5)
    assert json.loads(result.attrs["score_origin"])["diffusers"]["level"] == "safetensors"
    assert json.loads(result.attrs["versions"])["diffusers"] == diffusers.__version__
    assert "azula" not in json.loads(result.attrs["versions"])


def test_model_and_scheduler_are_given_as_objects_or_folders(tmp_path):
    model, scheduler = unet(), diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=100)
    model.save_pretrained(tmp_path / "model")
    scheduler.save_pretrained(tmp_path / "model" / "scheduler")
    scheduler.save_pretrained(tmp_path / "scheduler")
    diffusers.DDPMPipeline(model, scheduler).save_pretrained(tmp_path / "pipeline")
    process, x = VarianceExploding(0.02, 20), normal(2, 1, 8, 8).float()
    expected = NetworkScore.from_diffusers(model, scheduler, process).denoise(x, 1.3)
    for given in (
        (str(tmp_path / "model"),),
        (tmp_path / "pipeline",),
        (diffusers.DDPMPipeline(model, scheduler),),
        (model, tmp_path / "scheduler"),
        (tmp_path / "model", str(tmp_path / "scheduler")),
        (tmp_path / "model", scheduler),
    ):
        opened = NetworkScore.from_diffusers(*given, process=process)
        assert opened.event_shape == (1, 8, 8)
        assert torch.equal(opened.denoise(x, 1.3), expected)


def test_labels_null_label_and_learned_variance():
    """Classes are handed over as numbers, the null class stands for none, and half of a doubled output is the variance."""
    model = unet(num_class_embeds=5, out_channels=2)
    scheduler = diffusers.DDPMScheduler(clip_sample=False, variance_type="learned_range")
    process = process_of(scheduler)
    score = NetworkScore.from_diffusers(model, scheduler, process, null_label=4, guidance=3.0)
    assert (score.classes, score.label_free) == (4, True)
    x, label = normal(3, 1, 8, 8).float(), torch.tensor([0, 3, 1])
    alpha, sigma = float(process.alpha(101)), float(process.sigma(101))
    with torch.no_grad():
        given, free = (model(x, 100, class_labels=c).sample[:, :1] for c in (label, torch.full((3,), 4)))
    expected = (x - sigma * (free + 3 * (given - free))) / alpha
    torch.testing.assert_close(score.denoise(x, 101.0, label), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="cannot be called without labels"):
        NetworkScore.from_diffusers(model, scheduler, process).denoise(x, 101.0)


WEIGHTS = "diffusion_pytorch_model.safetensors"


def changed(folder, change):
    safetensors.torch.save_file(change(safetensors.torch.load_file(folder / WEIGHTS)), folder / WEIGHTS)


def pickled(folder):
    (folder / WEIGHTS).unlink()
    unet().save_pretrained(folder, safe_serialization=False)
    assert (folder / "diffusion_pytorch_model.bin").is_file()


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(), "no scheduler_config.json"),
        (lambda folder: (folder / WEIGHTS).unlink(), "expected a model in safetensors"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"junk"), "cannot be opened"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be opened"),
        (  # what a checkpoint lacks is not filled up at random
            lambda folder: changed(folder, lambda state: {k: v for k, v in state.items() if not k.startswith("conv_in")}),
            "missing weights .*conv_in",
        ),
        (lambda folder: changed(folder, lambda state: state | {"of_another": torch.zeros(2)}), "unexpected weights .*of_another"),
        (pickled, "safe_serialization=True"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # diffusers' own, on its way to the error
def test_folders_that_are_not_whole_are_refused_in_a_sentence(break_it, said, tmp_path):
    unet().save_pretrained(tmp_path)
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    break_it(tmp_path)
    with pytest.raises(ValueError, match=said):
        NetworkScore.from_diffusers(tmp_path)


@pytest.mark.parametrize("name", ["NoSuchScheduler", "utils", "UNet2DModel"])
def test_a_scheduler_that_diffusers_does_not_have_is_not_taken_for_another(name, tmp_path):
    diffusers.DDPMScheduler().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "scheduler_config.json").read_text()) | {"_class_name": name}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"names '{name}', which is no scheduler"):
        gt.sampler.alphas_cumprod_of(tmp_path)


def test_the_levels_are_the_schedulers_own():
    """Zero terminal signal ends one level earlier, a shifted signal is kept, and the spacing of a sampler changes nothing."""
    rescaled = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    for kind in (diffusers.DDPMScheduler, diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler):
        assert NetworkScore.from_diffusers(unet(), kind(**rescaled)).trained.time_max == 999
    shifted = diffusers.CogVideoXDDIMScheduler(snr_shift_scale=3.0)
    assert not torch.allclose(shifted.alphas_cumprod.double(), (1 - shifted.betas.double()).cumprod(0), rtol=0.01)
    torch.testing.assert_close(gt.sampler.alphas_cumprod_of(shifted), shifted.alphas_cumprod.double())
    for spacing in ({"use_karras_sigmas": True}, {"timestep_spacing": "trailing"}, {"use_exponential_sigmas": True}):
        torch.testing.assert_close(
            gt.sampler.alphas_cumprod_of(diffusers.EulerDiscreteScheduler(**spacing)),
            diffusers.DDPMScheduler(beta_schedule="linear").alphas_cumprod.double(),
        )


class Recording(torch.nn.Module):
    """The config and call of a diffusers model, which remembers its time and returns a fixed multiple of its state."""

    def __init__(self, share=0.5, **config):
        super().__init__()
        self.share, self.seen = share, []
        self.config = SimpleNamespace(**({"in_channels": 1, "out_channels": 1, "sample_size": 2} | config))

    def forward(self, sample, timestep, class_labels=None):
        self.seen.append(float(timestep[0]))
        return SimpleNamespace(sample=self.share * sample)


CONTINUOUS = {"timestep_type": "continuous", "prediction_type": "v_prediction", "sigma_min": 0.01, "sigma_max": 700.0}


@pytest.mark.parametrize(
    ("scheduler", "time", "noise_range"),
    [
        (lambda: diffusers.EulerDiscreteScheduler(**CONTINUOUS), np.log(2) / 4, (0.01, 700)),
        (lambda: diffusers.EulerDiscreteScheduler(**CONTINUOUS | {"use_karras_sigmas": True}), np.log(2) / 4, (0.01, 700)),
        (lambda: diffusers.EulerDiscreteScheduler(timestep_type="continuous"), 395.95, (0.01, 157.4)),  # epsilon: by steps
        (lambda: diffusers.FlowMatchEulerDiscreteScheduler(), 2000 / 3, (0.001 / 0.999, 9999)),
        (lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), 2000 / 3, (0.003 / 0.999, 9999)),
        (lambda: diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), 1000 / 3, (0.001 / 0.999, 9999)),
        (lambda: diffusers.FlowMatchHeunDiscreteScheduler(num_train_timesteps=100), 200 / 3, (0.01 / 0.99, 9999)),
        (
            lambda: diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
            2000 / 3,
            (0.003 / 0.999, 9999),
        ),
    ],
)
def test_a_network_gets_the_time_of_its_scheduler(scheduler, time, noise_range):
    """At nu = 2, and the noise levels it may be asked for."""
    model = Recording()
    score = NetworkScore.from_diffusers(model, scheduler(), VarianceExploding(1e-4, 1e5))
    score.denoise(torch.ones(1, 1, 2, 2), 2.0)
    assert model.seen == [pytest.approx(time, rel=1e-4)]
    assert score.noise_range == pytest.approx(noise_range, rel=1e-3)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_steps_of_a_flow_are_diffusers(shift):
    """The state, step by step down to 0, of FlowMatchEulerDiscreteScheduler in the rectified process."""
    model, scheduler = unet(), diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    score = NetworkScore.from_diffusers(model, scheduler, gt.sampler.Rectified())
    scheduler.set_timesteps(5)
    x = normal(2, 1, 8, 8).float()
    sigmas = [min(float(sigma), 0.9999) for sigma in scheduler.sigmas]
    for k, (step, t, s) in enumerate(zip(scheduler.timesteps, sigmas, sigmas[1:], strict=False)):
        with torch.no_grad():
            expected = scheduler.step(model(x, step).sample, step, x).prev_sample
        if k:  # the first level of diffusers is pure noise
            none = Noise(torch.zeros_like(x), torch.zeros(2).double())
            torch.testing.assert_close(ProbabilityFlow("euler").step(score, x, t, s, none), expected, rtol=1e-4, atol=1e-4)
        x = expected


def test_a_flow_with_the_data_at_the_last_step_has_the_velocity_towards_the_data():
    """invert_sigmas: the network gets 1000 (1 - s), and what it returns is x0 - z."""
    x = normal(2, 1, 2, 2).float()
    plain, inverted = (
        NetworkScore.from_diffusers(Recording(share), diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=share < 0))
        for share in (0.3, -0.3)
    )
    torch.testing.assert_close(inverted.denoise(x, 2.0), plain.denoise(x, 2.0))
    torch.testing.assert_close(plain.denoise(x, 2.0), x / 3 - 2 / 3 * 0.3 * x / 3)


def test_workers_get_the_files_of_arguments_by_absolute_paths(tmp_path):
    given = {"encoder_hidden_states": "prompt.npy", "added_cond_kwargs": {"text_embeds": "pooled.npy"}, "class_labels": 2}
    trained = {"kind": "callable", "factory": "a:b", "trained": {"kind": "discrete_vp", "scheduler": "folder"}}
    scores = [{"kind": "diffusers", "path": "folder", "arguments": given}, trained]
    sent = absolute(gt.Experiment.load({"scores": scores}), tmp_path)["scores"]
    assert sent[0]["arguments"]["encoder_hidden_states"] == str(tmp_path / "prompt.npy")
    assert sent[0]["arguments"]["added_cond_kwargs"] == {"text_embeds": str(tmp_path / "pooled.npy")}
    assert sent[0]["arguments"]["class_labels"] == 2
    assert sent[1]["trained"]["scheduler"] == str(tmp_path / "folder")


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_a_v_network_at_continuous_times_is_read_as_its_scheduler_reads_it():
    model, scheduler = Recording(0.3), diffusers.EulerDiscreteScheduler(**CONTINUOUS)
    scheduler.set_timesteps(7)
    score = NetworkScore.from_diffusers(model, scheduler)
    x, sigma = normal(2, 1, 2, 2).float(), float(scheduler.sigmas[3])
    step, scheduler._step_index = scheduler.timesteps[3], None
    with torch.no_grad():
        scaled = scheduler.scale_model_input(x, step)
        expected = scheduler.step(model(scaled, step[None]).sample, step, x).pred_original_sample
    torch.testing.assert_close(score.denoise(x, sigma), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_ddpm_folder_runs_with_no_further_word(tmp_path):
    """1,000 linear steps begin at 0.01, the process by default at 0.002: its limits follow, and the result says so."""
    diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    run = {"scores": [{"kind": "diffusers", "path": str(tmp_path), "micro_batch": 16}], "samples": 4, "reverse": {"steps": 3}}
    result = gt.run(run | BARE, progress=False)
    assert result.attrs["process_limits"] == "noise-to-signal 0.01 to 78.37, which diffusers was trained for"
    limits = "limits of noise-to-signal 0.01 to 78.37, which diffusers was trained for"
    assert f"variance_exploding ({limits})" in result.gaussian_test.show()
    for process in ({"kind": "cosine"}, {"kind": "rectified"}, {"kind": "ornstein_uhlenbeck"}, {"kind": "variance_preserving"}):
        found = prepare(gt.Experiment.load(run | BARE | {"process": process})).plan.process
        assert float(found.noise_to_signal(found.time_min)) == pytest.approx(0.01, rel=1e-3)
    with pytest.raises(gt.UserError, match=r"noise-to-signal ratio 0\.002 is outside"):
        prepare(gt.Experiment.load(run | BARE | {"process": {"sigma_min": 0.002}}))
    with pytest.raises(gt.UserError, match=r"score 'diffusers': noise-to-signal ratio 0.00\d* is outside the 0.01"):
        prepare(gt.Experiment.load(run | BARE | {"turn_times": {"noise_to_signal": [0.005, 1.0]}}))


def conditional(**changes):
    torch.manual_seed(0)
    blocks = {"block_out_channels": (8, 8), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "norm_num_groups": 4}
    blocks |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "layers_per_block": 1, "attention_head_dim": 2}
    return diffusers.UNet2DConditionModel(8, 1, 1, cross_attention_dim=6, **blocks, **changes).eval()


def test_a_conditional_unet_runs_with_the_embeddings_handed_in(tmp_path):
    model, prompt = conditional(), normal(1, 3, 6).float()
    np.save(tmp_path / "prompt.npy", prompt.numpy())
    safetensors.torch.save_file({"prompt": prompt}, tmp_path / "prompt.safetensors")
    model.save_pretrained(tmp_path / "unet")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "unet" / "scheduler")
    x = normal(2, 1, 8, 8).float()
    with torch.no_grad():
        noise = model(x / np.sqrt(5), torch.full((2,), 395.95), prompt.expand(2, 3, 6)).sample
    given = (prompt, prompt.numpy(), str(tmp_path / "prompt.npy"), tmp_path / "prompt.safetensors")
    for arguments in given:
        for one in (model, tmp_path / "unet"):
            scheduler = diffusers.DDPMScheduler()
            score = NetworkScore.from_diffusers(one, scheduler, arguments={"encoder_hidden_states": arguments})
            torch.testing.assert_close(score.denoise(x, 2.0), x - 2 * noise, rtol=1e-3, atol=1e-3)
    run = {
        "kind": "diffusers",
        "path": str(tmp_path / "unet"),
        "arguments": {"encoder_hidden_states": str(tmp_path / "prompt.npy")},
    }
    assert prepare(gt.Experiment.load({"scores": [run], "samples": 4} | BARE)).scores["diffusers"].event_shape == (1, 8, 8)


def dit(**changes):
    return diffusers.DiTTransformer2DModel(
        2, 4, in_channels=1, out_channels=2, num_layers=1, norm_num_groups=4, sample_size=8, num_embeds_ada_norm=5, **changes
    ).eval()


def sd3():
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "num_layers": 1, "attention_head_dim": 4, "patch_size": 2}
    sizes |= {"num_attention_heads": 2, "joint_attention_dim": 6, "caption_projection_dim": 8, "pooled_projection_dim": 5}
    return diffusers.SD3Transformer2DModel(**sizes).eval()


def test_transformers_run_with_classes_or_embeddings():
    x = normal(2, 1, 8, 8).float()
    shared = dit()
    score = NetworkScore.from_diffusers(
        shared, diffusers.DDIMScheduler()
    )  # half of its output is a variance, 5 stands for no class
    assert (score.classes, score.label_free) == (5, True)
    assert not torch.equal(score.denoise(x, 1.0), score.denoise(x, 1.0, torch.tensor([1, 2])))
    fixed = NetworkScore.from_diffusers(shared, diffusers.DDIMScheduler(), arguments={"class_labels": 2})
    assert torch.equal(fixed.denoise(x, 1.0), score.denoise(x, 1.0, torch.tensor([2, 2])))
    model, given = sd3(), {"encoder_hidden_states": normal(1, 3, 6).float(), "pooled_projections": normal(1, 5).float()}
    score = NetworkScore.from_diffusers(model, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), arguments=given)
    with torch.no_grad():
        rows = {name: value.expand(2, *value.shape[1:]) for name, value in given.items()}
        velocity = model(x / 2, timestep=torch.full((2,), 500.0), **rows).sample
    torch.testing.assert_close(score.denoise(x, 1.0), x / 2 - velocity / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        (conditional, {}, "UNet2DConditionModel is conditioned on encoder_hidden_states: give .*arguments: {encoder_hidden_states"),
        (sd3, {}, "SD3Transformer2DModel is conditioned on encoder_hidden_states and pooled_projections"),
        (conditional, {"encoder_hidden_states": "absent.npy"}, "absent.npy cannot be read"),
        (conditional, {"encoder_hidden_states": "notes.txt"}, "ends in '.txt'"),
        (conditional, {"encoder_hidden_states": np.zeros((3, 6))}, r"has the shape \(3, 6\).*give \(1, ...\)"),
        (conditional, {"encoder_hidden_states": None}, "is None: give a number"),
        (conditional, {"prompt": 1}, "takes no argument 'prompt': choose of encoder_hidden_states"),
        (dit, {"class_labels": 207}, "class_labels = 207 is none of the network's 6 class embeddings"),
        (lambda: torch.nn.Linear(2, 2), {}, "Linear is not a diffusers model .*kind: callable"),
    ],
)
def test_what_a_model_lacks_is_named_with_its_class(model, arguments, said):
    with pytest.raises(ValueError, match=said):
        NetworkScore.from_diffusers(model(), diffusers.DDPMScheduler(), arguments=arguments)


@pytest.mark.filterwarnings("ignore")
def test_variants_of_the_weights_are_named(tmp_path):
    model = unet()
    model.save_pretrained(tmp_path, variant="fp16")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ValueError, match="holds its weights only as fp16: add variant: fp16"):
        NetworkScore.from_diffusers(tmp_path)
    with pytest.raises(ValueError, match=r"no weights of the variant 'bf16': choose of what it has \(fp16\)"):
        NetworkScore.from_diffusers(tmp_path, variant="bf16")
    x = normal(2, 1, 8, 8).float()
    opened = NetworkScore.from_diffusers(tmp_path, variant="fp16").denoise(x, 1.0)
    assert torch.equal(opened, NetworkScore.from_diffusers(model, diffusers.DDPMScheduler()).denoise(x, 1.0))


def test_what_is_no_checkpoint_or_denoiser_is_refused():
    five, linear = unet(num_class_embeds=5), torch.nn.Linear(2, 2)
    for given, said in (
        (("nowhere",), "is not a folder"),
        ((linear, diffusers.DDPMScheduler()), "not a diffusers model"),
        ((unet(),), "no scheduler has no alphas_cumprod"),
        ((unet(), diffusers.ScoreSdeVeScheduler()), "ScoreSdeVeScheduler has no alphas_cumprod"),
    ):
        with pytest.raises(ValueError, match=said):
            NetworkScore.from_diffusers(*given)
    with pytest.raises(ValueError, match="none of the network's 5"):
        NetworkScore.from_diffusers(five, diffusers.DDPMScheduler(), null_label=5)
    with pytest.raises(ValueError, match="not an azula Denoiser"):
        NetworkScore.from_azula(linear, (2,))
    for schedule in (lambda t: (t + 0.01, 1 - t), lambda t: (1 + 0 * t, torch.sin(2.5 * t))):  # falls; rises and falls again
        with pytest.raises(ValueError, match="expected a steady rise"):
            NetworkScore.from_azula(gaussian_azula(schedule), EVENT)


# -- azula -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_azulas_gaussian_is_the_exact_score_in_every_schedule(schedule):
    score = NetworkScore.from_azula(gaussian_azula(SCHEDULES[schedule]()), EVENT)
    several = torch.tensor([0.1, 0.1, 3.0, 1.0], dtype=torch.float64)  # of rows, which this denoiser cannot take at once
    for nu in (0.02, 1.0, 50.0, several):
        x = MEAN + normal(4, *EVENT, seed=3) * (1 + torch.as_tensor(nu).reshape(-1, 1, 1, 1))
        torch.testing.assert_close(score.denoise(x, nu), exact(score.process).denoise(x, nu), rtol=1e-7, atol=1e-7)


class Backbone(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.embed = torch.nn.Linear(8, 8), torch.nn.Embedding(3, 8)

    def forward(self, x, t, label=None):
        hidden = self.layer(x.flatten(1)) + t.reshape(-1, 1)
        if label is not None:
            hidden = hidden + (label @ self.embed.weight if label.ndim == 2 else self.embed(label))
        return hidden.reshape(x.shape)


@pytest.mark.parametrize("kind", [SimpleDenoiser, KarrasDenoiser])
@pytest.mark.parametrize("one_hot", [False, True])
def test_azulas_denoisers_give_their_mean(kind, one_hot):
    denoiser, schedule = kind(Backbone(), VPSchedule()), VPSchedule()
    score = NetworkScore.from_azula(denoiser, EVENT, classes=3, one_hot=one_hot)
    x, label, t = normal(4, *EVENT).float(), torch.tensor([0, 2, 1, 1]), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = schedule(t)
    with torch.no_grad():
        expected = denoiser(alpha.float() * x, t.float(), label=label).mean
    torch.testing.assert_close(score.denoise(x, float(sigma / alpha), label), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "kernel"),
    [(EulerSampler, ProbabilityFlow("euler")), (DDIMSampler, ProbabilityFlow("euler")), (HeunSampler, ProbabilityFlow("heun"))],
)
def test_azulas_samplers_take_our_steps(sampler, kernel):
    denoiser = gaussian_azula(VPSchedule())
    score = NetworkScore.from_azula(denoiser, EVENT)
    t, s = torch.tensor([0.6, 0.5], dtype=torch.float64)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = VPSchedule()(t), VPSchedule()(s)
    x = normal(4, *EVENT)
    expected = sampler(denoiser).step(alpha_t * x, t, s) / alpha_s
    step = kernel.step(score, x, float(sigma_t / alpha_t), float(sigma_s / alpha_s), Noise(x, torch.zeros(4).double()))
    torch.testing.assert_close(step, expected, rtol=1e-8, atol=1e-8)


def test_azulas_sde_goes_where_ours_goes():
    """Its Ito sampler integrates the same SDE by another rule of first order: small steps agree to the step's square."""
    denoiser = gaussian_azula(VESchedule(0.002, 100.0))
    score, schedule = NetworkScore.from_azula(denoiser, EVENT), VESchedule(0.002, 100.0)
    x, differences = normal(4, *EVENT), []
    for width in (0.01, 0.005, 0.0025):
        t, s = torch.tensor([0.6, 0.6 - width], dtype=torch.float64)
        nu, mu = (float(schedule(time)[1]) for time in (t, s))
        torch.manual_seed(0)
        expected = ItoSampler(denoiser).step(x, t, s)
        torch.manual_seed(0)
        step = ReverseSDE("exponential").step(score, x, nu, mu, Noise(torch.randn_like(x), torch.zeros(4).double()))
        differences.append(float((step - expected).abs().max()))
    orders = np.log2(np.array(differences[:-1]) / differences[1:])
    np.testing.assert_allclose(orders, 2, atol=0.1)
