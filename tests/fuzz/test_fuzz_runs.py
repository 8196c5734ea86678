"""Whatever is a small experiment runs, or is refused in a sentence; and so is whatever is given for a ground truth."""

import fuzz_strategies as given
import numpy as np
from fuzz_cases import fuzz, sentence
from hypothesis import strategies as st

import gaussian_test as gt
from gaussian_test import UserError

SETTINGS = {"turn_times": {"noise_to_signal": [0.3, 3.0]}, "samples": 4, "reverse": {"steps": 3}, "observables": "none"}
SETTINGS |= {"statistics": {"bootstrap": 100}, "keep": {"pictures": 1}}


def runs(settings, path=None, **options):
    """Run, and look at the result in every way; or be refused, and leave nothing that looks like a result."""
    try:
        result = gt.run(settings, path, progress=False, **options)
    except UserError as error:
        sentence(error)
        assert path is None or not path.exists()
        return None
    assert result.gaussian_test.show()
    if result.attrs["start"] == "noised_data":
        assert np.isfinite(result["sample_autocorrelation"]).all()
    if path is not None:
        assert result.identical(gt.open_archive(path))
    return result


def test_small_experiments(tmp_path, long):
    tried = iter(range(10**9))

    def law(case):
        settings, truth = case
        number = next(tried)
        runs(settings, tmp_path / f"{number}.nc" if number % 3 == 0 else None, truth=truth)

    fuzz(st.tuples(given.small_experiments, given.truths()), law, 30, long)


def test_what_is_given_for_a_ground_truth(long):
    fuzz(given.wrong_truths(), lambda truth: runs(SETTINGS, truth=truth), 45, long)
