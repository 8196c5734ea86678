"""What the tests of the face share: a quick run, the command line in this process, refusals, any function as a score."""

from contextlib import contextmanager

import pytest
from click.testing import CliRunner

import gaussian_test as gt
from gaussian_test.cli.commands import main

QUICK = {"keep": {"pictures": 0}, "observables": "none", "statistics": {"bootstrap": 100}}


def invoke(*arguments):
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@contextmanager
def refused(said=""):
    """Assert that what is within is refused in one sentence that matches."""
    with pytest.raises(gt.UserError, match=said) as error:
        yield error
    assert len(str(error.value).splitlines()) == 1


class Own(gt.sampler.Score):
    """A score without a posterior whose denoiser is any function of state and time, or whose answer is always this number."""

    def __init__(self, function, process=None, event_shape=(1, 8, 8)):
        super().__init__(process or gt.sampler.VarianceExploding(), event_shape)
        self.function = function if callable(function) else lambda x, t: 0 * x + function

    def denoise(self, x, t, label=None):
        return self.function(x, t)
