"""Networks whose truth is known: the optimal denoiser of a Gaussian, in every prediction, scaling and library's clothes."""

from types import SimpleNamespace

import torch
from sampler_zoo import normal
from torch import nn

from gaussian_test.analysis.moments.gaussian_score import GaussianScore

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
