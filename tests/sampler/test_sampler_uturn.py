"""The U-Turn plan: keyed noise up to the turn, the same steps for all that have turned, and the exact law of the way back."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sampler_zoo import KERNELS, PROCESSES, SCORES, STEPPED, normal, pairwise_cover

from gaussian_test.analysis.moments.gaussian_score import GaussianScore
from gaussian_test.sampler import (
    DiscreteVP,
    EmpiricalScore,
    ExactReversal,
    KeyedNoise,
    ProbabilityFlow,
    ReverseKernel,
    ReverseSDE,
    UTurnPlan,
    VarianceExploding,
    reverse_grid,
)

VE = VarianceExploding()
DATA = normal(24, 3, seed=1)
CHOSEN = [5, 0, 17, 8]
X0 = DATA[CHOSEN]


def collect(plan, kernel, score=None, x0=X0, samples=CHOSEN, path=False, labels=None):
    score = score or EmpiricalScore(DATA, process=plan.process)
    return list(plan.run(x0, samples, {"a": score}, {"a": kernel}, labels, path))


def joined(states, phase, plan):
    """States of a phase for all turn times, (turns, rows, *event); every turn time exactly once."""
    parts = sorted((s for s in states if s.phase == phase), key=lambda s: s.turns.start)
    assert [t for s in parts for t in range(s.turns.start, s.turns.stop)] == list(range(len(plan.levels)))
    return torch.cat([s.x for s in parts])


def by_time(states, plan):
    """Path states of each turn time, {turn: {time: x}}."""
    result = {turn: {} for turn in range(len(plan.levels))}
    for state in states:
        if state.phase == "path":
            for offset, turn in enumerate(range(state.turns.start, state.turns.stop)):
                assert state.times[offset] not in result[turn]  # every time once
                result[turn][state.times[offset]] = state.x[offset]
    return result


def by_hand(plan, kernel, score, x0, samples, turn, label=None):
    """The documented recipe: the first draw noises, the second is the exact end's, then one draw for every step of the grid."""
    noise = KeyedNoise(plan.seed, samples, plan.repeats, tuple(x0.shape[1:]), dtype=x0.dtype)
    start, forward, at_end = x0.repeat_interleave(plan.repeats, 0), noise.draw(), noise.draw()
    x = plan.process.alpha(turn) * start + plan.process.sigma(turn) * forward.normal
    states = {turn: x}
    if kernel.exact:
        return {turn: x, 0.0: kernel.step(score, x, turn, 0.0, at_end, label)}
    for t, s in pairwise(plan.grid.tolist()):
        step = noise.draw()
        if t <= turn:
            x = states[s] = kernel.step(score, x, t, s, step, label)
    return states


@pytest.mark.parametrize("process", PROCESSES)
def test_levels_are_the_turn_times_used(process):
    process = PROCESSES[process]()
    asked = [process.turn_time_from_noise_to_signal(nu) for nu in (3.0, 0.5, 3.0, 20.0)]
    plan = UTurnPlan(process, asked, steps=9)
    assert plan.levels == tuple(sorted({process.turn_time(t) for t in asked}))
    assert np.array_equal(plan.grid, reverse_grid(process, plan.levels, 9))
    if isinstance(process, DiscreteVP):  # turn times are snapped and merged
        assert UTurnPlan(process, [100.2, 99.8, 500.4], steps=6).levels == (100.0, 500.0)


def test_shards_are_a_partition():
    samples = [9, 4, 7, 7, 0, 3, 12]
    for size in (1, 2, 3, 5, 7, 100):
        shards = UTurnPlan(VE, [1.0], shard_size=size).shards(samples)
        assert [sample for shard in shards for sample in shard] == samples
        assert [len(shard) for shard in shards[:-1]] == [size] * (len(shards) - 1)
        assert 1 <= len(shards[-1]) <= size
    assert UTurnPlan(VE, [1.0]).shards([]) == []


@pytest.mark.parametrize(("kernel", "process", "cut"), pairwise_cover(KERNELS, PROCESSES, [(1, 1), (3, 2), (1000, 2)]))
def test_runs_are_the_steps_by_hand(kernel, process, cut):
    """Turns, ends and, where there are steps, the whole path, however the batch is cut."""
    micro_batch, repeats = cut
    process, kernel = PROCESSES[process](), KERNELS[kernel]()
    turns = [process.turn_time_from_noise_to_signal(nu) for nu in (0.3, 1.0, 8.0)]
    plan = UTurnPlan(process, turns, steps=8, repeats=repeats, seed=2, micro_batch=micro_batch)
    score = EmpiricalScore(DATA, process=process)
    states = collect(plan, kernel, score)
    ends, turned = joined(states, "end", plan), joined(states, "turn", plan)
    paths = {} if kernel.exact else by_time(collect(plan, kernel, score, path=True), plan)
    assert {s.times for s in states if s.phase == "end"} <= {(0.0,) * n for n in (1, 2, 3)}
    for turn, level in enumerate(plan.levels):
        expected = by_hand(plan, kernel, score, X0, CHOSEN, level)
        torch.testing.assert_close(turned[turn], expected[level], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ends[turn], expected[0.0], rtol=1e-8, atol=1e-8)
        if paths:
            assert set(paths[turn]) == set(expected)
            for time, x in expected.items():
                torch.testing.assert_close(paths[turn][time], x, rtol=1e-8, atol=1e-8)


class Watched(EmpiricalScore):
    """Remembers how many states each call brought."""

    sizes = ()

    def denoise(self, x, *rest):
        self.sizes += (len(x),)
        return super().denoise(x, *rest)

    def posterior(self, x, *rest):
        self.sizes += (len(x),)
        return super().posterior(x, *rest)


@pytest.mark.parametrize("kernel", ["exact", "ancestral", "heun"])
@pytest.mark.parametrize("micro_batch", [1, 3, 8, 20, 1000])
def test_calls_fill_the_micro_batch_and_no_more(kernel, micro_batch):
    kernel = KERNELS[kernel]()
    plan = UTurnPlan(VE, [0.3, 1.0, 8.0], steps=5, repeats=2, micro_batch=micro_batch)
    score = Watched(DATA)
    collect(plan, kernel, score)
    rows = 2 * len(CHOSEN)
    assert max(score.sizes) <= micro_batch
    if micro_batch >= 3 * rows:  # at the end of the grid all have turned and go together
        assert score.sizes[-1] == 3 * rows
    if kernel.exact:
        assert sum(score.sizes) == 3 * rows
    elif not isinstance(kernel, ProbabilityFlow):
        assert sum(score.sizes) == sum(plan.reverse_steps()) * rows
        assert micro_batch < 3 * rows or len(score.sizes) == len(plan.grid) - 1


@pytest.mark.parametrize(("kernel", "path"), [("exact", False), ("exact", True), ("ancestral", True), ("edm_churn", False)])
def test_samples_do_not_depend_on_their_company(kernel, path):
    plan, kernel = UTurnPlan(VE, [0.3, 8.0], steps=6, repeats=2), KERNELS[kernel]()
    together = joined(collect(plan, kernel, path=path), "end", plan).reshape(2, len(CHOSEN), 2, 3)
    for place in (3, 0):
        alone = joined(collect(plan, kernel, x0=X0[place : place + 1], samples=CHOSEN[place : place + 1], path=path), "end", plan)
        torch.testing.assert_close(together[:, place], alone, rtol=1e-9, atol=1e-9)


def test_scores_do_not_depend_on_their_company():
    plan = UTurnPlan(VE, [0.3, 8.0], steps=6)
    empirical, gaussian = EmpiricalScore(DATA), GaussianScore.fit(DATA.numpy(), dtype=torch.float64)
    scores = {"a": empirical, "b": empirical, "c": gaussian, "d": empirical}
    kernels = {"a": ExactReversal(), "b": ReverseSDE(), "c": ReverseSDE(), "d": ReverseSDE()}
    states = list(plan.run(X0, CHOSEN, scores, kernels))
    ends = {name: joined([s for s in states if s.score == name], "end", plan) for name in scores}
    assert torch.equal(ends["b"], ends["d"])
    for name, kernel in kernels.items():
        alone = joined(collect(plan, kernel, scores[name]), "end", plan)
        torch.testing.assert_close(ends[name], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_path_visits_every_time_of_the_grid_and_ends_at_the_end(kernel):
    plan, kernel = UTurnPlan(VE, [0.3, 1.0, 8.0], steps=7, repeats=2), KERNELS[kernel]()
    kept = [(s, s.x.clone()) for s in plan.run(X0, CHOSEN, {"a": EmpiricalScore(DATA)}, {"a": kernel}, path=True)]
    assert all(torch.equal(s.x, copy) for s, copy in kept)  # nothing that was yielded is overwritten by later steps
    states = [s for s, _ in kept]
    ends, turned, paths = joined(states, "end", plan), joined(states, "turn", plan), by_time(states, plan)
    for turn, level in enumerate(plan.levels):
        assert list(paths[turn]) == [level, *plan.grid[plan.grid < level].tolist()]
        torch.testing.assert_close(paths[turn][level], turned[turn])
        assert torch.equal(paths[turn][0.0], ends[turn])
    assert plan.reverse_steps() == [len(path) - 1 for path in paths.values()]
    assert torch.equal(ends, joined(collect(plan, kernel), "end", plan))  # looking at the path does not change it


def test_inputs_and_global_state_are_left_alone():
    x0 = X0.clone()
    before = torch.get_rng_state()
    collect(UTurnPlan(VE, [0.3, 8.0], steps=6), ReverseSDE(), x0=x0, path=True)
    assert torch.equal(x0, X0)
    assert torch.equal(torch.get_rng_state(), before)


def test_states_at_chosen_times_are_those_of_the_whole_path():
    plan = UTurnPlan(VE, [1.0, 4.0], steps=8)
    whole = {s.times[0]: s.x for s in collect(plan, ExactReversal(), path=True) if s.phase == "path"}
    some = [s for s in collect(plan, ExactReversal(), path=[0.3, 0.0]) if s.phase == "path"]
    assert [s.times[0] for s in some] == [min(whole, key=lambda time: abs(time - 0.3)), 0.0]
    assert all(torch.equal(state.x, whole[state.times[0]]) for state in some)


def test_no_samples_give_no_states():
    assert collect(UTurnPlan(VE, [1.0]), ExactReversal(), x0=X0[:0], samples=[]) == []


@pytest.mark.parametrize(
    ("name", "kernel", "cut"),
    pairwise_cover(["empirical_labels", "gaussian_classes", "mixture"], ["exact", "sde", "heun"], [(False, 3), (True, 1000)]),
)
def test_labels_follow_their_samples(name, kernel, cut):
    """A conditional run is, class by class, the run of that class's own score."""
    case, kernel, (path, micro_batch) = SCORES[name](), KERNELS[kernel](), cut
    labels = torch.tensor([2, 0, 1, 1])
    x0, samples = normal(4, *case.event, seed=3), [4, 0, 9, 2]
    plan = UTurnPlan(VE, [0.4, 2.0], steps=5, repeats=2, micro_batch=micro_batch)
    score = case.make(VE, torch.float64)
    states = collect(plan, kernel, score, x0, samples, path, {"a": labels})
    ends = joined(states, "end", plan).reshape(2, 4, 2, *case.event)
    for label in range(3):
        members = (labels == label).nonzero().flatten().tolist()
        alone = collect(plan, kernel, case.refit(label, VE, torch.float64), x0[members], [samples[m] for m in members])
        expected = joined(alone, "end", plan).reshape(2, len(members), 2, *case.event)
        torch.testing.assert_close(ends[:, members], expected, rtol=1e-8, atol=1e-8)


class Featurewise(GaussianScore):
    """The same score, but run in features."""

    def modal(self):
        return None


@pytest.mark.parametrize(
    ("kernel", "dtype", "process"), pairwise_cover(STEPPED, [torch.float32, torch.float64], ["variance_exploding", "cosine"])
)
def test_running_in_modes_is_running_in_features(kernel, dtype, process):
    process, kernel = PROCESSES[process](), KERNELS[kernel]()
    x = normal(40, 2, 3, seed=6) + 0.5
    score = GaussianScore.fit(x.numpy(), process=process, dtype=dtype)
    assert score.modal() is not None
    turns = [process.turn_time_from_noise_to_signal(nu) for nu in (0.4, 3.0)]
    plan = UTurnPlan(process, turns, steps=7, seed=3)
    states = [collect(plan, kernel, s, x[:4].to(dtype), range(4), True) for s in (score, featurewise(score))]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    for one, other in zip(*states, strict=True):
        assert (one.phase, one.times, one.turns) == (other.phase, other.times, other.turns)
        assert one.x.dtype == dtype
        torch.testing.assert_close(one.x, other.x, rtol=tolerance, atol=tolerance * 4)


@pytest.mark.parametrize(("kernel", "process"), [("sde", "variance_exploding"), ("ancestral", "cosine"), ("heun", "cosine")])
def test_noise_of_its_own_is_noise_along_the_modes(kernel, process):
    """A run in features with the noise rotated back is the run with noise of its own: only their basis differs."""
    process, kernel = PROCESSES[process](), KERNELS[kernel]()
    score = GaussianScore.fit((normal(40, 2, 3, seed=6) + 0.5).numpy(), process=process, dtype=torch.float64)
    turns = [process.turn_time_from_noise_to_signal(nu) for nu in (0.4, 3.0)]
    x0, plan = normal(4, 2, 3, seed=8), UTurnPlan(process, turns, steps=7)
    own = collect(UTurnPlan(process, turns, steps=7, shared_noise=False), kernel, score, x0, range(4), True)
    shared = collect(plan, kernel, score, x0, range(4), True)
    rotated = collect(plan, RotatedNoise(kernel, score.modal().rotate_back), featurewise(score), x0, range(4), True)
    for one, expected in zip(own, rotated, strict=True):
        torch.testing.assert_close(one.x, expected.x, rtol=1e-10, atol=1e-10)
    same = [torch.equal(one.x, other.x) for one, other in zip(own, shared, strict=True) if one.phase == "end"]
    assert same == [not kernel.uses_noise]


def featurewise(score):
    return Featurewise(score.components, score.event_shape, score.process)


class RotatedNoise(ReverseKernel):
    """A kernel that sees its noise in another basis."""

    def __init__(self, kernel, rotate):
        self.kernel, self.rotate = kernel, rotate

    @property
    def uses_noise(self):
        return self.kernel.uses_noise

    def step(self, score, x, t, s, noise, label=None):
        if self.uses_noise:
            noise = noise._replace(normal=self.rotate(noise.normal))
        return self.kernel.step(score, x, t, s, noise, label)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"turn_times": []}, "no turn time"),
        ({"turn_times": [0.0]}, "lies outside"),
        ({"turn_times": [1.0, 81.0]}, "lies outside"),
        ({"turn_times": [math.nan]}, "lies outside"),
        ({"steps": 0}, "steps = 0"),
        ({"repeats": 0}, "repeats = 0"),
        ({"shard_size": 0}, "shard_size = 0"),
        ({"micro_batch": 0}, "micro_batch = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_impossible_plans_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        UTurnPlan(**{"process": VE, "turn_times": [1.0], **settings})


NONE, ZERO = {}, torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("x0", "samples", "kernels", "labels", "message"),
    [
        (X0, CHOSEN[:2], "a", NONE, "do not match"),
        (X0[:1], CHOSEN, "a", NONE, "do not match"),
        (X0, CHOSEN, "b", NONE, "do not match"),
        (X0, CHOSEN, "ab", NONE, "do not match"),
        (X0, CHOSEN, "", NONE, "do not match"),
        (X0, CHOSEN, "a", {"typo": ZERO}, "match"),
        (X0, CHOSEN, "a", {"a": ZERO[:1]}, "match"),
        (X0, CHOSEN, "a", {"a": ZERO[:3]}, "match"),
        (normal(4, 5), CHOSEN, "a", NONE, "does not fit this score"),
    ],
)
def test_what_does_not_match_is_refused(x0, samples, kernels, labels, message):
    scores = {"a": EmpiricalScore(DATA, torch.zeros(24, dtype=torch.long))}
    with pytest.raises(ValueError, match=message):
        list(UTurnPlan(VE, [1.0]).run(x0, samples, scores, dict.fromkeys(kernels, ReverseSDE()), labels))
