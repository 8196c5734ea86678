r"""The laws of a score and its denoiser :math:`D(x, t) = E[x_0 \mid x_t = x]`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from gaussian_test.conformance.laws import Laws, draw, noise_for
from gaussian_test.sampler import Noise, Score
from gaussian_test.sampler.defaults import undisturbed

SCORE_LAWS = {
    "states": "denoise gives finite states in the shape and the type of those it is given",
    "pure": "the same states give the same bits; states, buffers and torch's random numbers are left as they are",
    "rows": "a batch of states, each at a time of its own, is each of them",
    "class": "a row is given its own class, and classes differ",
    "tweedie": "the score is (alpha_t D - x)/sigma_t^2",
    "gradient": "the score is the gradient of the log density",
    "mean": "at the largest noise the denoiser is the mean of the data",
    "draws": "a posterior draw is a pure function of its noise, row by row",
    "posterior": "posterior draws have the denoiser as their mean",
    "spread": "posterior draws have the variance sigma_t^2/alpha_t dD/dx",
}
ROWS = 5
ERRORS = 5.0  # largest deviation of a mean of draws, in standard errors
FEW = 160.0  # a variance below this share of spread^2/draws can come from draws too rare to occur


@undisturbed()
def check_score(
    score: Score,
    mean: Tensor | None = None,
    log_density: Callable[[Tensor, float], Tensor] | None = None,
    classes: int = 0,
    spread: float = 1.0,
    levels: Sequence[float] | None = None,
    draws: int = 4000,
) -> None:
    r"""Raise unless a score obeys the laws of scores.

    ``states``, ``pure``, ``rows``, ``class``, ``tweedie``, ``gradient``, ``mean``, ``draws``, ``posterior``, ``spread``: see
    :data:`SCORE_LAWS`. It is in evaluation mode during the check. Results that must be identical are compared bit by bit; those
    that may differ by rounding, to 1e-4 of the largest value in float32 and 1e-8 in float64; the gradient to 1e-3 and 1e-6 of its
    norm; means of posterior draws within 5 standard errors, their variances within 5 standard errors and 5 %, where large enough to
    be resolved by that many draws. At the largest noise :math:`D - \mu` is :math:`\Sigma(x-\mu)/\nu^2` to leading order: with s the
    ``spread``, no feature may deviate by more than :math:`8 s^2/\nu`.

    Parameters
    ----------
    score : Score
        The score.
    mean : Tensor, optional
        Mean of its data, shape ``event_shape``. Without it ``mean`` is not checked, and states are around 0.
    log_density : callable, optional
        Takes states (batch, ``*event_shape``) and a time and returns :math:`\log p_t`, (batch,), differentiable by torch. Without
        it ``gradient`` is not checked.
    classes : int
        Number of classes, with labels from 0; 0 for a score without classes.
    spread : float
        Standard deviation of the data along its widest direction, in the data's unit.
    levels : sequence of float, optional
        Noise-to-signal ratios for the check. Default: five, from the larger of 0.05 and the smallest of its process to the largest.
    draws : int
        Posterior draws at each level.

    Returns
    -------
    None

    Raises
    ------
    ConformanceError
        At the first broken law.

    Examples
    --------
    >>> from gaussian_test.sampler import EmpiricalScore, VarianceExploding
    >>> x = torch.eye(3)
    >>> check_score(EmpiricalScore(x), mean=x.mean(0))
    >>> class Half(Score):
    ...     def denoise(self, x, t, label=None):
    ...         return x / 2
    >>> check_score(Half(VarianceExploding(), (3,)), mean=torch.zeros(3))
    Traceback (most recent call last):
    ...
    gaussian_test.conformance.laws.ConformanceError: score Half breaks 'mean' (at the largest noise the denoiser is the mean ...
    """
    laws = Laws("score", type(score).__name__, SCORE_LAWS)
    process = score.process
    if levels is None:
        low, high = (float(process.noise_to_signal(t)) for t in (process.time_min, process.time_max))
        levels = np.geomspace(min(max(low, 0.05), high / 2), high * (1 - 1e-9), 5).tolist()
    times = [process.turn_time_from_noise_to_signal(level) for level in levels]
    label = torch.arange(ROWS) % classes if classes else None
    with _evaluated(score):
        case = _Case(laws, score, mean, spread, label)
        for t in times:
            _check_calls(case, t)
        _check_rows(case, times)
        for t in times:
            x = case.states(t)
            alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
            found, denoised = score(x, t, case.label), score.denoise(x, t, case.label)
            laws.close(
                "tweedie", found, (alpha * denoised - x) / sigma**2, f"at time {t:.6g}", case.width(denoised, x) * alpha / sigma**2
            )
            if log_density is not None:
                leaf = x.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(log_density(leaf, t).sum(), leaf)
                width = (1e-3 if case.dtype == torch.float32 else 1e-6) * float(gradient.norm())
                laws.close("gradient", found, gradient, f"at time {t:.6g}", width)
        if classes:
            _check_classes(case, times[len(times) // 2], classes)
        if mean is not None:
            t = times[-1]
            nu = float(process.noise_to_signal(t))
            denoised = score.denoise(case.states(t), t, case.label)
            laws.close("mean", denoised, mean.expand_as(denoised), f"at noise-to-signal {nu:.4g}", 8 * spread**2 / nu)
        if score.has_posterior:
            for t in (times[0], times[len(times) // 2]):
                _check_posterior(case, t, draws)


class _Case:
    """A score with typical states."""

    def __init__(self, laws: Laws, score: Score, mean: Tensor | None, spread: float, label: Tensor | None) -> None:
        tensors = [value for value in (*score.buffers(), *score.parameters()) if value.is_floating_point()]
        self.laws = laws
        self.score = score
        self.dtype = tensors[0].dtype if tensors else torch.float64
        self.device = tensors[0].device if tensors else torch.device("cpu")
        self.centre = torch.zeros(score.event_shape) if mean is None else mean
        self.spread = spread
        self.label = None if label is None else label.to(self.device)
        self.relative = 1e-4 if self.dtype == torch.float32 else 1e-8

    def states(self, t: float) -> Tensor:
        """Return noised states around the mean of the data."""
        shape = (ROWS, *self.score.event_shape)
        start = self.centre.detach().cpu().double() + self.spread * draw(*shape, seed=3)
        return self.score.process.noised(start, t, draw(*shape, seed=4)).to(self.device, self.dtype)

    def width(self, *values: Tensor) -> float:
        """Return the tolerance for rounding."""
        return self.relative * max(float(value.abs().max()) for value in values) + 1e-12


@contextmanager
def _evaluated(score: Score) -> Iterator[None]:
    was_training = score.training
    score.eval()
    try:
        with torch.enable_grad():  # the log density needs gradients even if disabled outside
            yield
    finally:
        score.train(was_training)


def _check_calls(case: _Case, t: float) -> None:
    laws, score, x = case.laws, case.score, case.states(t)
    kept, state = [value.clone() for value in (x, *score.buffers())], torch.get_rng_state()
    with torch.no_grad():
        first = score.denoise(x, t, case.label)
        is_state = isinstance(first, Tensor) and first.shape == x.shape and first.dtype == x.dtype
        what = f"{tuple(first.shape)} {first.dtype}" if isinstance(first, Tensor) else f"a {type(first).__name__}"
        laws.demand(is_state, "states", f"{tuple(x.shape)} {x.dtype} at time {t:.6g} gave {what}")
        laws.demand(bool(torch.isfinite(first).all()), "states", f"at time {t:.6g} it gave NaN or infinite values")
        moved = not torch.equal(torch.get_rng_state(), state)
        torch.rand(3)
        score.denoise(x + 1, t, case.label)
        again = score.denoise(x, t, case.label)
        torch.set_rng_state(state)
    laws.demand(not moved, "pure", f"at time {t:.6g} it drew random numbers of torch")
    apart = float((again - first).abs().max())
    laws.demand(torch.equal(again, first), "pure", f"at time {t:.6g} a second call gave values up to {apart:.2g} away")
    same = all(torch.equal(a, b) for a, b in zip(kept, (x, *score.buffers()), strict=True))
    laws.demand(same, "pure", f"at time {t:.6g} it changed the states or its own buffers")


def _check_rows(case: _Case, times: Sequence[float]) -> None:
    each = [times[row % len(times)] for row in range(ROWS)]
    x = torch.stack([case.states(t)[row] for row, t in enumerate(each)])
    with torch.no_grad():
        together = case.score.denoise(x, torch.tensor(each, dtype=torch.float64), case.label)
        for row, t in enumerate(each):
            label = None if case.label is None else case.label[row : row + 1]
            alone = case.score.denoise(x[row : row + 1], t, label)
            place = f"row {row} of {ROWS}, at time {t:.6g}"
            case.laws.close("rows", together[row], alone[0], place, case.width(together[row]))


def _check_classes(case: _Case, t: float, classes: int) -> None:
    x = case.states(t)[:1]
    with torch.no_grad():
        of_class = [
            case.score.denoise(x.expand(2, *x.shape[1:]), t, torch.full((2,), label, device=case.device))
            for label in range(classes)
        ]
        mixed = case.score.denoise(x.expand(classes, *x.shape[1:]), t, torch.arange(classes, device=case.device))
    for label, alone in enumerate(of_class):
        case.laws.close("class", mixed[label], alone[0], f"class {label} among others", case.width(mixed))
    differ = any(not torch.allclose(one, of_class[0], rtol=1e-3) for one in of_class[1:])
    case.laws.demand(differ or classes == 1, "class", f"at time {t:.6g} all {classes} classes give the same denoised state")


def _check_posterior(case: _Case, t: float, draws: int) -> None:
    laws, score, process = case.laws, case.score, case.score.process
    one = case.states(t)[:1]
    label = None if case.label is None else case.label[:1].expand(draws)
    x = one.expand(draws, *one.shape[1:])
    noise = noise_for(x, seed=5)
    with torch.no_grad():
        drawn = score.posterior(x, t, noise, label)
        laws.demand(
            torch.equal(score.posterior(x, t, noise, label), drawn), "draws", f"at time {t:.6g} the same noise gave other draws"
        )
        alone = score.posterior(one, t, Noise(noise.normal[:1], noise.uniform[:1]), None if label is None else label[:1])
        laws.close("draws", drawn[:1], alone, f"one of {draws} alone, at time {t:.6g}", case.width(drawn))
        denoised = score.denoise(one, t, None if label is None else label[:1])[0].double().flatten()
        deviation = drawn.double().flatten(1) - denoised
        rounding = case.width(drawn)
        # dD_i/dx_i by central differences
        step = 1e-2 * float(process.sigma(t))
        sides = torch.diag(torch.full((len(denoised),), step, dtype=case.dtype, device=case.device)).reshape(-1, *one.shape[1:])
        wide = None if label is None else label[:1].expand(len(sides))
        slopes = [score.denoise(one + sign * sides, t, wide).double().flatten(1).diagonal() for sign in (1, -1)]
        variance = (slopes[0] - slopes[1]) / (2 * step) * float(process.sigma(t)) ** 2 / float(process.alpha(t))
    # the denoiser's variance includes events too rare for the draws
    error = (torch.maximum(deviation.var(0), variance.clamp(min=0)) / draws).sqrt()
    place = f"the mean of {draws} draws less the denoiser, at time {t:.6g},"
    laws.close("posterior", deviation.mean(0), torch.zeros_like(denoised), place, ERRORS * error.cpu().numpy() + rounding)
    squares, seen = deviation.square(), variance > FEW * case.spread**2 / draws
    width = ERRORS * squares.std(0) / np.sqrt(draws) + 0.05 * variance.abs() + rounding * (1 + float(drawn.abs().max()))
    place = f"the variance of a feature at time {t:.6g}:"
    laws.close("spread", squares.mean(0)[seen], variance[seen], place, width[seen].cpu().numpy())
