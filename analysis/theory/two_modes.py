r"""Two Gaussian classes at :math:`\pm m` with variance v.

All depends on :math:`c^2 = |m|^2/(v+\nu^2)` through :math:`\mathbb E\tanh(c^2+cy)`, :math:`y\sim\mathcal N(0,1)`.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import roots_hermitenorm

from gaussian_test.locks import numpy_defaults

Array = NDArray[np.float64]

NODES = 1000  # of the Gauss-Hermite rule


_hermite = functools.cache(roots_hermitenorm)  # some milliseconds, for every step of a root search


def retention_signal_to_noise(level: float) -> float:
    r"""Return the :math:`c_*^2 = |m|^2/(v+\nu^2)` at which the retention of two symmetric Gaussian classes is the level.

    .. math:: \mathbb E\tanh^2(c^2 + c\,y) = \text{level},\qquad y\sim\mathcal N(0,1)

    Parameters
    ----------
    level : float
        In (0, 1).

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the level is outside (0, 1).

    Examples
    --------
    >>> round(retention_signal_to_noise(0.5), 6)
    0.850844
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level:g}: give a share in (0, 1)")
    if level < 1e-12:
        return level  # retention is c^2 to first order
    # the loss is at most exp(-c^2/2)
    return float(brentq(lambda square: 1 - float(_lost(np.array(square))) - level, 0, -2 * np.log1p(-level), xtol=1e-14))


@numpy_defaults()
def _lost(square: Array) -> Array:
    r"""Return :math:`1 - \mathbb E\tanh^2(c^2+cy) = 1 - \mathbb E\tanh(c^2+cy) = e^{-c^2/2}\,\mathbb E\,\mathrm{sech}(cy)`.

    The last form, from a shift of y, is positive at every node.
    """
    nodes, weights = _hermite(NODES)
    argument = np.abs(np.sqrt(square)[..., None] * nodes)
    sech = 2 * np.exp(-argument) / (1 + np.exp(-2 * argument))
    result: Array = np.exp(-square / 2) * (sech @ (weights / weights.sum()))
    return result


@dataclass(frozen=True)
class TwoGaussians:
    r"""Statistics of two symmetric Gaussian classes under an exact score.

    Attributes
    ----------
    mmse : ndarray
        :math:`\mathbb E|x_0 - D|^2`, in the squared unit of the data.
    same_class : ndarray
        :math:`\phi`, the probability that a U-Turn ends in the class that it started from.
    autocorrelation : ndarray
        :math:`C = 1 - \mathrm{mmse}/\mathrm{tr}\,\Sigma`.
    """

    mmse: Array
    same_class: Array
    autocorrelation: Array


def two_gaussians(noise_to_signal: ArrayLike, *, separation: float, variance: float, dimension: int) -> TwoGaussians:
    r"""Return the closed forms for two Gaussians of equal weight at :math:`\pm m`, with variance v in each of d directions.

    With :math:`c^2 = |m|^2/(v+\nu^2)`, :math:`y\sim\mathcal N(0,1)` and :math:`\mathrm{tr}\,\Sigma = dv + |m|^2`,

    .. math:: \mathrm{mmse} = \frac{dv\nu^2}{v+\nu^2} + \Big(\frac{\nu^2}{v+\nu^2}\Big)^2|m|^2\,
              \big(1-\mathbb E\tanh(c^2+cy)\big),\qquad
              \phi = \tfrac12\big(1+\mathbb E\tanh^2(c^2+cy)\big) .

    Parameters
    ----------
    noise_to_signal : array
        :math:`\nu`, positive, any shape.
    separation : float
        :math:`|m|`, half the distance of the means, nonnegative.
    variance : float
        v, nonnegative, not zero together with the separation.
    dimension : int
        d, at least 1.

    Returns
    -------
    TwoGaussians
        Arrays of the shape of ``noise_to_signal``. The expectations are accurate to 1e-12, by Gauss-Hermite quadrature.

    Raises
    ------
    ValueError
        If a noise-to-signal ratio is not positive, a parameter is negative, or the data do not vary.

    Examples
    --------
    >>> two_gaussians([1.0], separation=0.0, variance=3.0, dimension=2).autocorrelation.round(12).tolist()  # 3/(3 + 1)
    [0.75]
    """
    nu = np.asarray(noise_to_signal, dtype=np.float64)
    trace = dimension * variance + separation**2
    if not (nu > 0).all():
        raise ValueError(f"noise-to-signal ratio {nu.min():g}: give positive ones")
    if min(separation, variance) < 0 or not trace > 0:
        raise ValueError(f"separation {separation:g} and variance {variance:g}: give nonnegative ones, not both zero")
    nu2 = nu**2
    lost = _lost(separation**2 / (variance + nu2))
    noise = nu2 / (variance + nu2)
    mmse = dimension * variance * noise + noise**2 * separation**2 * lost
    return TwoGaussians(mmse, 1 - lost / 2, 1 - mmse / trace)
