"""Names of version 0.1: they work with a warning, in their earlier order; an order that is not meant is refused."""

import numpy as np
import pytest

import gaussian_test as gt
from gaussian_test import analysis
from gaussian_test.analysis import earlier_names
from gaussian_test.analysis.statistics.curves import falls_through

NU, CURVE = [0.1, 1.0, 10.0], [1.0, 0.75, 0.25]


def test_every_earlier_name_has_a_home_and_warns():
    names = [name for home in earlier_names.HOMES.values() for name in home.split()]
    assert len(names) == len(set(names))
    assert not set(names) & set(analysis.__all__)
    for name in names:
        with pytest.warns(DeprecationWarning, match=rf"analysis\.{name} is deprecated: import \w+ from gaussian_test\.analysis\."):
            assert callable(getattr(analysis, name))
    with pytest.raises(AttributeError, match="no attribute 'never'"):
        _ = analysis.never


def test_earlier_names_take_their_arguments_in_the_earlier_order():
    with pytest.warns(DeprecationWarning, match="noise_to_signal comes after the data"):
        assert analysis.falls_through(NU, CURVE, 0.5) == falls_through(CURVE, NU, level=0.5)


def test_noise_levels_in_the_place_of_the_data_are_refused():
    curve = np.array(CURVE)
    for call in (
        lambda: falls_through(NU, CURVE, level=0.5),
        lambda: analysis.sample_time(NU, curve[:, None, None], level=0.5),
        lambda: analysis.path_time(NU, curve[:, None, None]),
        lambda: analysis.affine_time(NU, curve, curve, curve, tolerance=0.02, standard_error=curve),
    ):
        with pytest.raises(ValueError, match="noise_to_signal is not positive and increasing"):
            call()


def test_own_observables_are_custom_observables():
    made = {"contrast": {"factory": "custom_things:contrast"}}
    with pytest.warns(DeprecationWarning, match="write custom_observables"):
        assert gt.Experiment.load({"own_observables": made}) == gt.Experiment.load({"custom_observables": made})
    small = {"samples": 4, "turn_times": {"noise_to_signal": [0.1, 5.0]}, "observables": "none"}
    with pytest.warns(DeprecationWarning, match="give custom_observables"):
        result = gt.run(small, own_observables={"size": lambda start, end: end.flatten(1).norm(dim=1)}, progress=False)
    # its archives of 0.1 have the earlier attribute
    result["size"].attrs["own_observable"] = result["size"].attrs.pop("custom_observable")
    assert "Custom observable size" in result.gaussian_test.show()
