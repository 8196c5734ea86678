"""The handwritten digits that come with scikit-learn."""

import numpy as np

from gaussian_test.data.formats.rows import MemoryRows
from gaussian_test.data.samples import Samples
from gaussian_test.data.values import encode_labels


def open_digits() -> Samples:
    """Return the digits of scikit-learn's ``load_digits``, without a download.

    Examples
    --------
    >>> open_digits().rows.shape
    (1797, 1, 8, 8)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rows = MemoryRows(bunch.images[:, np.newaxis].astype(np.uint8))
    labels = encode_labels(bunch.target, rows.shape[0], "the digits' labels")
    return Samples(rows, "digits of 8 x 8 pixels (scikit-learn)", labels, value_range=(0.0, 16.0))
