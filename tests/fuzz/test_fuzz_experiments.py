"""Whatever is given as an experiment is one, or is refused in a sentence."""

import fuzz_strategies as given
import pytest
import yaml
from fuzz_cases import SECONDS, fuzz, limit, sentence
from hypothesis import strategies as st

from gaussian_test import UserError
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.experiment.processes import Cosine, DiscreteVP, OrnsteinUhlenbeck, Rectified, Settings, VariancePreserving
from gaussian_test.experiment.scores import EDM, Azula, Callable, Diffusers, Empirical, Gaussian, Mixture, Network


def loads(source, changes=()):
    """Load an experiment that survives its own YAML, or refuse it."""
    try:
        experiment = Experiment.load(source, changes)
    except UserError as error:
        sentence(error)
        return None
    text = experiment.to_yaml()
    text.encode()
    again = Experiment.load(yaml.safe_load(text))
    assert again == experiment
    return experiment


def test_dicts(long):
    fuzz(given.experiments, loads, 150, long)


def test_yaml(tmp_path, long):
    def law(text):
        (tmp_path / "e.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
        loads(tmp_path / "e.yaml")

    fuzz(given.yaml_texts, law, 120, long)


@pytest.mark.parametrize("number", range(len(given.SNIPPETS)))
def test_every_snippet(number, tmp_path):
    (tmp_path / "e.yaml").write_text(given.SNIPPETS[number])
    loads(tmp_path / "e.yaml")


def test_changes(long):
    fuzz(st.tuples(st.one_of(st.just({}), given.good_experiments), given.changes), lambda case: loads(*case), 120, long)


def places(settings, inside=()):
    """Yield every place of an experiment."""
    for name, field in settings.model_fields.items():
        yield (*inside, name)
        value = field.default
        if isinstance(value, Settings):
            yield from places(type(value), (*inside, name))
    if not inside:
        for kind in (Empirical, Gaussian, Mixture, Network, Diffusers, EDM, Azula, Callable):
            yield from ((("scores", kind.__name__.lower(), name)) for name in kind.model_fields)
        for kind in (OrnsteinUhlenbeck, VariancePreserving, Cosine, Rectified, DiscreteVP):
            yield from ((("process", kind.model_fields["kind"].annotation.__args__[0], name)) for name in kind.model_fields)
        yield from (("turn_times", "time", name) for name in ("min", "max", "count"))
        yield from (("turn_times", name) for name in ("time", "noise_to_signal"))


PLACES = list(places(Experiment))


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_everything_in_every_place(place, long):
    """What hypothesis would take long to come upon: every odd value under every key; fewer of the ordinary ones."""
    ordinary = [*given.NUMBERS, *given.WORDS, None, True, [], {}, [[]], {"a": 1}, {None: 1}, [None], {0.5}]
    first = 0 if long else PLACES.index(place) % 5
    for value in [*given.ODD, *([given.BOMB] if len(place) == 1 else []), *ordinary[first :: 1 if long else 5]]:
        if place[0] == "scores" and len(place) > 1:
            values = {"scores": [{"kind": place[1], "path": "a", place[2]: value}]}
        elif place[0] == "process" and len(place) == 3:
            values = {"process": {"kind": place[1], place[2]: value}}
        else:
            values = {place[-1]: value}
            for name in reversed(place[:-1]):
                values = {name: values}
        with limit(SECONDS):
            loads(values)


def test_names_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in given.WORDS:
        with pytest.raises(UserError) as error:
            Experiment.load(name)
        sentence(error.value)
