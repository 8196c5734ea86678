"""The data that come with the package, or with scikit-learn."""

from importlib.resources import files

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


FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def open_fashion() -> Samples:
    """Return the first 5,000 training images of Fashion-MNIST (Zalando SE, MIT licence), which lie beside this package.

    References
    ----------
    Xiao, Rasul & Vollgraf, arXiv 1708.07747.

    Examples
    --------
    >>> open_fashion().rows.shape
    (5000, 1, 28, 28)
    """
    with (files("gaussian_test.data") / "fashion.npz").open("rb") as file, np.load(file, allow_pickle=False) as content:
        pictures, labels = content["x"], content["label"]
    return Samples(
        MemoryRows(pictures[:, np.newaxis]),
        "Fashion-MNIST, 5,000 images of 28 x 28 pixels",
        encode_labels(labels, len(labels), "the labels of Fashion-MNIST", FASHION),
    )
