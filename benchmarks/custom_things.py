"""A custom process, kernel, observable, feature extractor and classifier for the frozen experiments."""

from sklearn.neighbors import KNeighborsClassifier

from gaussian_test import sampler


class Noising(sampler.Cosine):
    """A process under another name."""


class Steps(sampler.ReverseSDE):
    """A kernel under another name."""


def noising(**settings):
    return Noising(**settings)


def steps(clock="variance"):
    return Steps(clock=clock)


def contrast():
    def measure(start, end):
        """Standard deviation of the end point."""
        return end.flatten(1).std(1)

    measure.units = "grey levels"
    return measure


def halves():
    return lambda x: x.flatten(1)[:, ::2]


def classifier():
    return KNeighborsClassifier(3)
