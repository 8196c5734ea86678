"""A custom process, kernel, observable, feature extractor and classifier for the frozen experiments."""

from sklearn.neighbors import KNeighborsClassifier

from gaussian_test import sampler


class Noising(sampler.Cosine):
    """A process under another name."""


class Steps(sampler.ReverseSDE):
    """A kernel under another name."""


def noising(**settings):
    """Return a process."""
    return Noising(**settings)


def steps(clock="variance"):
    """Return a kernel."""
    return Steps(clock=clock)


def contrast():
    """Return an observable, the standard deviation of the end point."""

    def measure(start, end):
        return end.flatten(1).std(1)

    measure.units = "grey levels"
    return measure


def halves():
    """Return a feature extractor, of every other feature."""
    return lambda x: x.flatten(1)[:, ::2]


def classifier():
    """Return a classifier."""
    return KNeighborsClassifier(3)
