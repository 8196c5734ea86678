r"""Runs that start from something else than noised data: G-Turns and starts from noise alone.

A G-Turn starts the reverse process from the Gaussian with the noised data's mean and covariance. As
:math:`\alpha_T x_0 + \sigma_T z` with :math:`x_0 \sim \mathcal N(\mu, \Sigma)` is that Gaussian at every T, it is a U-Turn whose
:math:`x_0` is no ground-truth sample; a start from noise alone has :math:`x_0 = 0`. What can be said of end points is said of all
starts; what needs a ground-truth sample to have come from is undefined, with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import xarray as xr

from gaussian_test.analysis.moments.moments import evenly
from gaussian_test.sampler import EmpiricalScore

NO_SAMPLE = "a G-Turn starts from no ground-truth sample"
NO_START = "the start is noise alone: there is nothing to correlate with"
NEEDS_SAMPLE = (
    *("gap", "memorized_share", "class_retention", "balance", "memorization", "speciation", "affine", "kl_from_gaussian"),
    *("sample_memorization", "sample_speciation", "excess_entropy"),
)
NEEDS_START = (*NEEDS_SAMPLE, "autocorrelation", "sample_autocorrelation", "sample_denoiser_gap")


def undefine(result: xr.Dataset, start: str) -> xr.Dataset:
    """Return a result in which what a start leaves without meaning is NaN, with the reason.

    Parameters
    ----------
    result : Dataset
        Root group of an archive in the making.
    start : str
        ``noised_data``, ``gaussian`` or ``isotropic``.

    Returns
    -------
    Dataset

    Examples
    --------
    >>> undefine(xr.Dataset({"gap": ("turn_time", [0.1])}), "gaussian").gap.item()
    nan
    """
    if start == "noised_data":
        return result
    names, reason = (NEEDS_SAMPLE, NO_SAMPLE) if start == "gaussian" else (NEEDS_START, NO_START)
    for name in _beginning_with(result, names):
        if "_predicted" not in name or name.endswith("_excess_entropy"):  # what the data alone predict stays
            result[name] = result[name].astype(np.float64).where(False)
            result[name].attrs["reason"] = reason
    return result


def _beginning_with(result: xr.Dataset, names: Iterable[str]) -> list[str]:
    return [str(name) for name in result.data_vars if any(str(name) == one or str(name).startswith(one + "_") for one in names)]


def typical_nearest_distance(samples: EmpiricalScore, most: int = 1024) -> float:
    """Return how far ground-truth samples typically are from their nearest neighbour: the median.

    Parameters
    ----------
    samples : EmpiricalScore
        The ground-truth set, at least two samples.
    most : int
        Samples looked at, evenly spaced over the set.

    Returns
    -------
    float
        Euclidean distance, in the unit of the data.

    Examples
    --------
    >>> typical_nearest_distance(EmpiricalScore(torch.tensor([[0.0], [1.0], [3.0]])))
    1.0
    """
    index = torch.from_numpy(evenly(samples.count, most)).to(samples.center.device)
    return float(samples.nearest(samples.originals(index), exclude=index)[1].median())
