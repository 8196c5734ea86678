"""Noise levels to begin with: dense around the times that the spectrum of the data predicts."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.statistics.curves import predicted_affine, predicted_memorization, predicted_speciation

Array = NDArray[np.float64]


def pilot_levels(
    eigenvalues: ArrayLike,
    count: int,
    third_cumulant_norm: float,
    *,
    tolerance: float = 0.02,
    levels: int = 24,
    within: tuple[float, float] = (0.0, np.inf),
) -> Array:
    r"""Return noise levels that are dense around the three predicted times.

    They are quantiles of the density in :math:`\log\nu`

    .. math:: 1 + 2\sum_T\exp\left(-\tfrac12\left(\frac{\log\nu - \log T}{0.35}\right)^2\right)

    between 0.2 times the least and 6 times the largest of them: :math:`T_m` with :math:`I_G(T_m) = \log N`, :math:`T_s =
    \sqrt{\lambda_1}` and :math:`T_G = (\|\kappa_3\|^2/(2\,\mathrm{tol}\,\mathrm{tr}\,\Sigma))^{1/4}`. One that is undefined is left
    out. Those beyond an end of ``within`` are replaced by this end, so that all grids of the same data share the levels between.
    Data times a power of two give these levels times it, bit for bit.

    Parameters
    ----------
    eigenvalues : array
        Of the ground-truth covariance, shape (modes,), not all 0.
    count : int
        Number of ground-truth samples N, at least 2.
    third_cumulant_norm : float
        :math:`\|\kappa_3\|^2` of the data.
    tolerance : float
        Tolerance on the gap, positive.
    levels : int
        Number of levels, at least 1, before some are replaced; a single one lies in the middle.
    within : tuple of float
        Least and largest level there may be; positive and finite where it cuts.

    Returns
    -------
    array
        Noise-to-signal ratios, shape (at most levels,), ascending.

    Raises
    ------
    ValueError
        If nothing lies ``within``.

    Examples
    --------
    >>> pilot_levels([4.0, 1.0], 100, 0.0, levels=3).round(3)
    array([ 0.028,  0.584, 12.   ])
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    unit = 2.0 ** np.round(np.log2(values.max()) / 2)
    values = values / unit**2
    times = np.array(
        [
            predicted_memorization(values, count),
            predicted_speciation(values),
            predicted_affine(third_cumulant_norm / unit**6, float(values.sum()), tolerance=tolerance),
        ]
    )
    times = times[times > 0]
    low, high = 0.2 * times.min(), 6 * times.max()
    if not max(low * unit, within[0]) < min(high * unit, within[1]):
        raise ValueError(
            f"the data's noise levels, {low * unit:.3g} to {high * unit:.3g}, lie outside of "
            f"{within[0]:.3g} to {within[1]:.3g}, which process and scores cover: scale the data or choose another process"
        )
    log_nu = np.linspace(np.log(low), np.log(high), 4097)
    density = 1 + 2 * np.exp(-0.5 * ((log_nu - np.log(times)[:, None]) / 0.35) ** 2).sum(0)
    share = np.append(0, np.cumsum(density[1:] + density[:-1]))
    chosen = np.interp(np.linspace(0, share[-1], levels) if levels > 1 else share[-1:] / 2, share, log_nu)
    found: Array = np.unique(np.clip(np.exp(chosen) * unit, *within))
    return found
