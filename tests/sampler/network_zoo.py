"""The zoo of networks: the optimal denoiser of a Gaussian in every prediction, scaling and library's clothes, and random ones."""

from types import SimpleNamespace

import torch
from sampler_zoo import Case, normal
from torch import nn

from gaussian_test.analysis.moments.gaussian_score import GaussianScore
from gaussian_test.sampler import Cosine, NetworkScore, ResidualDenoiser, Score

EVENT = (2, 2, 2)
MEAN = normal(*EVENT, seed=61) / 3
SPECTRUM = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.01]).double()
BASIS = torch.linalg.qr(normal(8, 8, seed=62))[0]
COVARIANCE = (BASIS * SPECTRUM) @ BASIS.T


def exact(process, dtype=torch.float64):
    """The affine score that all these networks must agree with."""
    return GaussianScore.from_moments(MEAN.numpy(), COVARIANCE.numpy(), process=process, dtype=dtype)


def rows(value, x):
    return value.to(x).reshape(-1, *(1,) * (x.ndim - 1))


def predicting(prediction, trained, exact_of=exact):
    """Return a network f(x, t, label) in the scaling ``trained``, from the defining formula of its prediction."""
    score = exact_of(trained)

    def network(x, t, label=None):
        time = t.double()
        denoised = score.denoise(x.double(), time, label).to(x)
        alpha, sigma = rows(trained.alpha(time), x), rows(trained.sigma(time), x)
        noise = (x - alpha * denoised) / sigma
        if prediction == "x0":
            return denoised
        if prediction == "epsilon":
            return noise
        if prediction == "v":
            return alpha * noise - sigma * denoised
        if prediction == "score":
            return -noise / sigma
        # velocity: the derivatives of the schedule by central differences, not by the f and g2 that the product uses
        h = 1e-6 * time
        slope_alpha = rows((trained.alpha(time + h) - trained.alpha(time - h)) / (2 * h), x)
        slope_sigma = rows((trained.sigma(time + h) - trained.sigma(time - h)) / (2 * h), x)
        return slope_alpha * denoised + slope_sigma * noise

    return network


class LinearDenoiser(nn.Module):
    """The posterior mean of a Gaussian given x0 + sigma z, in its eigenbasis."""

    def __init__(self, mean=MEAN, covariance=COVARIANCE):
        super().__init__()
        values, vectors = torch.linalg.eigh(covariance.double())
        for name, value in (("mean", mean.double()), ("values", values.clamp(min=0)), ("vectors", vectors)):
            self.register_buffer(name, value)

    def forward(self, y, sigma):
        y64, sigma = y.double(), torch.as_tensor(sigma, device=y.device).double().reshape(-1, 1)
        modes = (y64 - self.mean.double()).flatten(1) @ self.vectors.double()
        modes = modes * (self.values / (self.values + sigma**2))
        return (self.mean.double() + (modes @ self.vectors.double().T).reshape(y.shape)).to(y)


class LinearEDM(nn.Module):
    """The same with EDM's interface; labels shift the mean, so that a label that is lost or mistaken is seen."""

    sigma_min, sigma_max = 0.002, 80.0

    def __init__(self, label_dim=0, mean=MEAN, covariance=COVARIANCE):
        super().__init__()
        self.denoiser = LinearDenoiser(mean, covariance)
        self.label_dim = label_dim
        self.img_channels, self.img_resolution = mean.shape[:2]
        self.seen = []

    def round_sigma(self, sigma):
        return torch.as_tensor(sigma)

    def forward(self, x, sigma, class_labels=None):
        self.seen.append((tuple(x.shape), x.dtype, x.is_contiguous(memory_format=torch.channels_last)))
        assert sigma.shape == x.shape[:1]
        assert sigma.dtype == x.dtype
        denoised = self.denoiser(x, sigma)
        if class_labels is not None:
            assert class_labels.shape == (len(x), self.label_dim)
            denoised = denoised + rows(class_labels @ torch.arange(1.0, self.label_dim + 1).to(x), x)
        return denoised


class LinearDiffusers(nn.Module):
    """The same as a noise-predicting model with the call and the config of diffusers' UNet2DModel."""

    def __init__(self, alphas_cumprod, mean=MEAN, covariance=COVARIANCE):
        super().__init__()
        self.denoiser = LinearDenoiser(mean, covariance)
        self.register_buffer("alphas_cumprod", alphas_cumprod.double())
        channels, size = mean.shape[:2]
        self.config = SimpleNamespace(in_channels=channels, out_channels=channels, sample_size=size, num_class_embeds=None)

    def forward(self, sample, timestep, class_labels=None):
        step = timestep.round().long()
        assert bool((step == timestep).all())
        alpha, sigma = self.alphas_cumprod[step].sqrt(), (1 - self.alphas_cumprod[step]).sqrt()
        denoised = self.denoiser(sample.double() / rows(alpha, sample.double()), sigma / alpha)
        noise = (sample.double() - rows(alpha, denoised) * denoised) / rows(sigma, denoised)
        return SimpleNamespace(sample=noise.to(sample))


# -- random networks: what they say has no truth, how they are called and moved has ------------------------------------------------


class Convolutional(nn.Module):
    """Remembers in which memory format and type it was called."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.SiLU(), nn.Dropout(0.5), nn.Conv2d(8, 2, 3, padding=1))
        self.formats, self.dtypes = [], []
        randomize(self)

    def forward(self, x, t, label):
        hidden = self.layers(x)
        self.formats.append(x.is_contiguous(memory_format=torch.channels_last))
        self.dtypes.append(hidden.dtype)
        return hidden


class Own(Score):
    """A score of one's own: it takes the state in the data's units, the noise level and the class."""

    def __init__(self, process, dtype):
        super().__init__(process, (4,))
        self.layer, self.classes = nn.Linear(5, 4, dtype=dtype), nn.Embedding(2, 4, dtype=dtype)
        randomize(self)

    def denoise(self, x, t, label=None):
        y, variance = self.signal(x, t)
        level = y.new_ones(len(y), 1) * (1 + variance).log()
        return nn.functional.silu(self.layer(torch.cat([y / (1 + variance).sqrt(), level], 1)) + self.classes(label))


def randomize(network):
    """Give a network weights of its own, the same in every type but for rounding."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 4)
    return network


def _convolutional(process, dtype, **options):
    return NetworkScore.from_callable(Convolutional().to(dtype), EVENT, process, **options)


def _guided(process, dtype):
    small = {"width": 8, "hidden": 8, "blocks": 1, "embedding": 4, "sigma_min": 1e-4, "sigma_max": 1e4}
    network = randomize(ResidualDenoiser(img_channels=2, img_resolution=2, label_dim=2, **small)).to(dtype)
    return NetworkScore.from_edm(network, process, guidance=1.5, conditional=True)


NETWORKS = {
    "network": lambda: Case(
        lambda *given: _convolutional(*given, prediction="epsilon", trained=Cosine(1e-5), micro_batch=7), None, EVENT
    ),
    "network_channels_last": lambda: Case(lambda *given: _convolutional(*given, prediction="x0", channels_last=True), None, EVENT),
    "network_guided": lambda: Case(_guided, None, EVENT, 2),
    "own": lambda: Case(Own, None, (4,), 2),
}
