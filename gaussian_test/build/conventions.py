"""Whether a network denoises as it is read, and which reading would."""

import torch

from gaussian_test import sampler
from gaussian_test.errors import UserError
from gaussian_test.sampler.networks.adapters import Called
from gaussian_test.sampler.networks.prediction import Prediction, to_denoised
from gaussian_test.sampler.process import Process, per_row

STATES = 16  # ground-truth samples that are noised
SPREADS = (0.1, 1.0, 10.0)  # noise levels, in the spread of the data
SOUND, RATIO = 1.2, 1.5  # squared errors, in that of the best denoiser of white Gaussian data; of two readings
Reading = tuple[Prediction, int, int]  # what it predicts, its time of the data, the sign of a velocity
PREDICTIONS: tuple[Prediction, ...] = ("x0", "epsilon", "v", "score", "velocity")


def check_convention(name: str, score: sampler.Score, x: torch.Tensor, label: torch.Tensor | None, spread: float) -> None:
    """Raise if a network of the user's denoises much better if it is read otherwise.

    Every reading (what it predicts, where its data is, where its velocity points) is tried on the same noised samples. A network
    that denoises in none is left as it is: it may be a poor one.

    Parameters
    ----------
    name : str
        Of the score.
    score : Score
        Anything but a function or module of the user's is left as it is.
    x, label : Tensor
        A few samples, and their classes if the network is given these.
    spread : float
        Standard deviation of a feature of the data.

    Raises
    ------
    UserError
        If another reading denoises, or the network lacks the last of its steps.
    """
    if not isinstance(score, sampler.NetworkScore) or not isinstance(score.network, Called):
        return
    network = score.network
    if network.integer:
        _last_step(name, score, network, x[:1], None if label is None else label[:1])
    now = (score.prediction, network.data_at, network.sign)
    errors = _errors(score, network, network.data_at, x, label, spread)
    if now not in errors:
        return
    if isinstance(score.trained, Process) and score.trained.time_max <= 1 and not network.integer:
        errors |= _errors(score, network, 1 - network.data_at, x, label, spread)
    # of equal ones the nearest to what was said
    better = min(errors, key=lambda key: (errors[key], sum(a != b for a, b in zip(key, now, strict=True))))
    if errors[now] > RATIO * errors[better] and errors[better] < SOUND:
        raise UserError(
            f"score {name!r} denoises better if read otherwise: its squared error is {errors[now]:.3g} times that of the best "
            f"denoiser of white Gaussian data of this spread, and {errors[better]:.3g} times if read with {_said(better)}: give "
            "these, or correct what 'trained' says"
        )


def _errors(
    score: sampler.NetworkScore, network: Called, data_at: int, x: torch.Tensor, label: torch.Tensor | None, spread: float
) -> dict[Reading, float]:
    """Return the squared errors of all readings of what a network returns; none where it fails."""
    trained, (low, high) = score.trained, score.noise_range
    levels = sorted({min(max(spread * share, low), high) for share in SPREADS})
    errors: dict[Reading, float] = {}
    generator = torch.Generator().manual_seed(0)
    kept = network.data_at, network.sign
    network.data_at, network.sign = data_at, 1
    try:
        for nu in levels:
            noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
            t = trained.time(nu).to(x.dtype).double()
            state = per_row(trained.alpha(t), x) * x + per_row(trained.sigma(t), x) * noise
            with torch.inference_mode():
                raw = network(state, t, label)
            for prediction in PREDICTIONS if isinstance(trained, Process) else PREDICTIONS[:-1]:
                for sign in (1, -1) if prediction == "velocity" else (1,):
                    denoised = to_denoised(prediction, sign * raw, state, t, trained)
                    error = float((denoised - x).double().square().mean()) * (1 / spread**2 + 1 / nu**2)
                    errors[prediction, data_at, sign] = errors.get((prediction, data_at, sign), 0.0) + error / len(levels)
    except Exception:  # user code may raise anything, and a run says so at its own levels
        return {}
    finally:
        network.data_at, network.sign = kept
    return errors


def _last_step(name: str, score: sampler.NetworkScore, network: Called, x: torch.Tensor, label: torch.Tensor | None) -> None:
    last = round(float(score.trained.time(score.noise_range[1])))
    try:
        with torch.inference_mode():
            network(x, torch.tensor(float(last), dtype=torch.float64), label)
    except Exception as error:  # user code may raise anything
        other = 1 - network.first
        raise UserError(
            f"score {name!r} fails at its last step {last - 1 + network.first} ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]}): with first: {other} its steps are {other} to {last - 1 + other}; correct "
            "first or 'trained'"
        ) from error


def _said(reading: Reading) -> str:
    prediction, data_at, sign = reading
    settings = [f"prediction: {prediction}", f"data_at: {data_at}"]
    return ", ".join([*settings, f"towards: {'noise' if sign > 0 else 'data'}"] if prediction == "velocity" else settings)
