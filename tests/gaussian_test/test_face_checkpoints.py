"""Networks from files and factories: what is opened, what is refused and what the archive says about it."""

import hashlib
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
import safetensors.torch
import torch
from face_zoo import QUICK, invoke, refused

import gaussian_test as gt
from gaussian_test import UserError

SETTINGS = QUICK | {"samples": 8, "turn_times": {"noise_to_signal": [0.5, 2.0]}, "reverse": {"kind": "euler", "steps": 4}}
FACTORY = """
import os
import torch

class Halving(torch.nn.Module):
    sigma_min, sigma_max, label_dim, img_channels, img_resolution = 0.002, 80.0, 3, 1, 8

    def __init__(self, share=0.5):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor([share]))

    def round_sigma(self, sigma):
        return torch.as_tensor(sigma)

    def forward(self, x, sigma, class_labels=None):
        return self.share * x

def halving(share=0.5, **changes):
    net = Halving(share)
    for name, value in changes.items():
        setattr(net, name, value)
    return net

def bare(**arguments):
    net = torch.nn.Module()
    net.share = torch.nn.Parameter(torch.zeros(1))
    net.round_sigma, net.forward = torch.as_tensor, lambda x, sigma, class_labels=None: net.share * x
    return net

def function(**arguments):
    net = Halving(**arguments)
    return lambda x, t, label: net(x, t)

def score():
    import gaussian_test
    return gaussian_test.analysis.GaussianScore.from_moments([[[0.0] * 8] * 8], torch.eye(64).numpy())

def failing():
    raise KeyError("of its own")

def nothing():
    return 3

def asserting():
    def network(x, t, label):
        raise AssertionError("of its own")
    return network

def late():
    def network(x, t, label):
        assert len(x) < 4, "too many for it"
        return x
    return network

class Evil:
    def __reduce__(self):
        return (os.system, ("touch ran_code",))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the current folder of a user who has a module of networks in it."""
    name = f"my_networks_{tmp_path.name}".replace("-", "_")  # imported once for each test
    (tmp_path / f"{name}.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return name


def execute(score, **changes):
    trust = changes.pop("trust", None)
    return gt.run(SETTINGS | {"scores": [score]} | changes, trust=trust, progress=False)


def origin(result, name):
    return json.loads(result.attrs["score_origin"])[name]


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def halved(result, share=0.5):
    """Whether D = share x: |D|^2 of the one-evaluation estimator, recomputed from the samples and the keyed noise."""
    truth, score = gt.data.load("digits"), str(result.score.values[0])
    samples = result.sample.values
    noise = gt.sampler.KeyedNoise(0, samples.tolist(), 1, (1, 8, 8)).draw().normal
    moments = gt.analysis.fit_moments(truth.x)
    x0, mean = torch.from_numpy(truth.x.values[samples]), torch.from_numpy(moments.mean)
    squares = [(share * (x0 + nu * noise) - mean).square().flatten(1).sum(1) for nu in (0.5, 2.0)]
    expected = [(square.double() / moments.trace).numpy() for square in squares]
    row = result.sample_autocorrelation_one_shot_squared.sel(score=score).isel(repeat=0)
    np.testing.assert_allclose(row.values, expected, rtol=1e-5)


def test_a_factory_runs_because_the_user_has_named_it(folder):
    result = execute({"kind": "edm", "factory": f"{folder}:halving", "arguments": {"share": 0.25}})
    halved(result, 0.25)
    assert origin(result, "edm") == {"level": "code named by the user", "sha256": ""}
    assert result.score_kind.item() == "edm"


@pytest.mark.parametrize(
    ("suffix", "save", "level"),
    [
        (".safetensors", lambda state, path: safetensors.torch.save_file(state, path), "safetensors"),
        (".pt", torch.save, "weights_only"),
        (".pth", lambda state, path: torch.save({"ema": state, "step": 7}, path), "weights_only"),
    ],
)
def test_weights_are_loaded_without_running_anything(folder, suffix, save, level):
    save({"share": torch.tensor([0.125])}, f"weights{suffix}")
    key = {"weights_key": "ema"} if suffix == ".pth" else {}
    result = execute({"kind": "edm", "factory": f"{folder}:halving", "weights": f"weights{suffix}", **key})
    halved(result, 0.125)
    assert origin(result, "edm") == {"level": f"code named by the user; {level}", "sha256": digest(f"weights{suffix}")}


def imported(folder):
    sys.path.append(str(Path.cwd()))
    try:
        return __import__(folder)
    finally:
        sys.path.remove(str(Path.cwd()))


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".ckpt"])
def test_what_runs_code_is_not_opened_and_the_refusal_says_why_and_what_to_do(folder, suffix):
    path = Path(f"evil{suffix}")
    path.write_bytes(pickle.dumps(imported(folder).Evil()))
    source = {"path": str(path)} if suffix == ".pkl" else {"factory": f"{folder}:halving", "weights": str(path)}
    score = {"kind": "edm", **source}
    with pytest.raises(UserError) as error:
        execute(score)
    assert not Path("ran_code").exists()
    for part in ("is not opened", "safetensors", "if you trust whoever made the file", f"--trust {path} SHA256"):
        assert part in str(error.value)
    assert digest(path) not in str(error.value)  # it is to be had from whoever published the file
    with pytest.raises(UserError, match="it is another file, or was changed"):
        execute(score, trust={str(path): "0" * 64})
    assert not Path("ran_code").exists()


def test_torchscript_and_exported_programs_are_files_that_run_code(folder):
    for path in ("net.ts", "net.pt2"):
        Path(path).write_bytes(b"anything")
        with pytest.raises(UserError, match="opening it runs whatever code is in it"):
            execute({"kind": "callable", "path": path})


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_trusted_file_is_opened_by_its_digest(folder):
    Path("net.pkl").write_bytes(pickle.dumps({"ema": imported(folder).halving(0.75), "step": 3}))
    result = execute({"kind": "edm", "path": "net.pkl"}, trust={"net.pkl": digest("net.pkl").upper()})
    halved(result, 0.75)
    assert origin(result, "edm") == {"level": "trusted file that runs code", "sha256": digest("net.pkl")}

    class Call(torch.nn.Module):
        def forward(self, x, t, label: Optional[torch.Tensor] = None):  # noqa: UP045 # what TorchScript understands
            return x / 4

    torch.jit.script(Call()).save("net.ts")
    halved(execute({"kind": "callable", "path": "net.ts"}, trust={"net.ts": digest("net.ts")}), 0.25)


def test_a_trusted_pickle_is_converted_once_and_runs_without_trust(folder):
    net = imported(folder).halving(0.75)
    net.init_kwargs = {"share": 0.5}  # as EDM's networks know theirs
    Path("net.pkl").write_bytes(pickle.dumps({"ema": net, "step": 3}))
    done = invoke("convert", "net.pkl", "--trust", digest("net.pkl"))
    assert (done.exit_code, done.stderr) == (0, "")
    assert "gaussian-test run net.yaml" in done.stdout
    told = Path("net.yaml").read_text()
    assert "samples of shape (1, 8, 8), 3 classes, noise levels 0.002 to 80" in told
    assert digest("net.pkl") in told
    Path("net.pkl").unlink()
    entry = gt.Experiment.load(Path("net.yaml")).scores[1]
    assert (entry.factory, entry.arguments) == (f"{folder}:Halving", {"share": 0.5})
    result = execute(entry.model_dump())
    halved(result, 0.75)
    assert origin(result, "edm") == {"level": "code named by the user; safetensors", "sha256": digest("net.safetensors")}
    changed = entry.model_dump() | {"factory": f"{folder}:halving", "arguments": {"label_dim": 5}}
    with pytest.raises(UserError, match=r"builds a network with label_dim = 5, and that of net.safetensors has 3"):
        execute(changed)
    with pytest.raises(UserError, match="holds weights, not what builds the network"):
        execute({"kind": "edm", "path": "net.safetensors"})
    bare = entry.model_dump() | {"factory": f"{folder}:bare", "arguments": {}}  # a raw module gets the facts of the file
    halved(execute(bare), 0.75)


@pytest.mark.parametrize(
    ("made", "arguments", "said"),
    [
        ("halving", ["--trust", "0" * 64], "it is another file, or was changed"),
        ("function", [], "lacks sigma_min"),
        ("halving", ["-o", "net.pt"], "net.pt does not end in .safetensors"),
        ("halving", ["-o", "there.safetensors"], "there.safetensors exists"),
        ("absent", [], "cannot be read"),
        ("Evil", ["--trust", "0" * 64], "it is another file, or was changed"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(made, arguments, said, folder):
    Path("there.safetensors").write_bytes(b"anything")
    if made != "absent":
        module = imported(folder)
        Path("net.pkl").write_bytes(pickle.dumps(module.__dict__[made]() if made != "function" else torch.nn.Linear(2, 2)))
    before = set(Path().iterdir())
    trust = digest("net.pkl") if made != "absent" else "0" * 64
    done = invoke("convert", "net.pkl", *(arguments if "--trust" in arguments else ["--trust", trust, *arguments]))
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert set(Path().iterdir()) == before


def test_a_trusted_file_that_is_no_model_or_that_nothing_opens_is_told(folder):
    Path("net.pkl").write_bytes(b"junk")
    with pytest.raises(UserError, match="cannot be opened"):
        execute({"kind": "edm", "path": "net.pkl"}, trust={"net.pkl": digest("net.pkl")})
    with pytest.raises(UserError, match=r"net.pkl is trusted, but no score of the experiment opens it"):
        execute({"kind": "edm", "factory": f"{folder}:halving"}, trust={"net.pkl": "0" * 64})


def test_a_callable_may_be_a_function_or_a_score_of_any_kind(folder):
    halved(execute({"kind": "callable", "factory": f"{folder}:function", "arguments": {"share": 0.5}}))
    result = execute({"kind": "callable", "factory": f"{folder}:score"})
    assert np.isfinite(result.autocorrelation_exact).all()  # an affine score has its closed form


def test_a_callable_says_what_it_predicts_and_where_it_was_trained(folder):
    """eps = x / 2 in the cosine process: D = (1 - sigma / 2) x / alpha of its own state, which is alpha times ours."""
    score = {"kind": "callable", "factory": f"{folder}:function", "prediction": "epsilon", "trained": {"kind": "cosine"}}
    once = {"turn_times": {"noise_to_signal": [0.5]}}
    result = execute(score, **once)
    share = 1 - 0.5 / np.hypot(1, 0.5) / 2
    full = execute({"kind": "edm", "factory": f"{folder}:halving", "arguments": {"share": share}}, **once)
    np.testing.assert_allclose(result.sample_autocorrelation_one_shot, full.sample_autocorrelation_one_shot, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"prediction": "velocity", "trained": {"kind": "rectified"}}, 2 / 3 * (1 - 0.5 / 3)),
        ({"prediction": "velocity", "trained": {"kind": "rectified"}, "data_at": 1}, 2 / 3 * (1 + 0.5 / 3)),
        ({"prediction": "velocity", "trained": {"kind": "rectified"}, "towards": "data"}, 2 / 3 * (1 + 0.5 / 3)),
        (
            {
                "prediction": "epsilon",
                "trained": {"kind": "discrete_vp", "alphas_cumprod": [0.9, 0.8, 0.5]},
                "timesteps": "integer",
                "first": 1,
            },
            1 - 0.5 * 0.5 / np.sqrt(1.25),
        ),
    ],
)
def test_conventions_are_settings(folder, changes, share):
    """A network that returns x / 2 in its own scaling, at nu = 0.5: D is that share of ours."""
    once = {"turn_times": {"noise_to_signal": [0.5]}, "process": {"sigma_min": 0.4}}
    result = execute({"kind": "callable", "factory": f"{folder}:function"} | changes, **once)
    full = execute({"kind": "edm", "factory": f"{folder}:halving", "arguments": {"share": float(share)}}, **once)
    np.testing.assert_allclose(result.sample_autocorrelation_one_shot, full.sample_autocorrelation_one_shot, rtol=1e-5)


HALVING = {"kind": "edm", "factory": "{m}:halving"}


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ({"kind": "edm", "factory": "{m}:failing"}, r"score 'edm': {m}:failing failed \(KeyError: 'of its own'\)"),
        ({"kind": "edm", "factory": "no_such_module:f"}, r"no_such_module:f failed \(ModuleNotFoundError"),
        ({"kind": "edm", "factory": "{m}:nothing"}, "lacks sigma_min"),
        ({"kind": "callable", "factory": "{m}:nothing"}, "gave a int, which cannot be called"),
        ({"kind": "azula", "factory": "{m}:halving"}, "is not an azula Denoiser"),
        (HALVING | {"weights": "absent.pt"}, "absent.pt cannot be read"),
        (HALVING | {"weights": "w.safetensors", "weights_key": "ema"}, r"has no 'ema' \(it holds 'other'\)"),
        (HALVING | {"weights": "w.safetensors"}, r"w.safetensors does not fit the network .*share"),
        (HALVING | {"weights": "broken.safetensors"}, "broken.safetensors is damaged"),
        (HALVING | {"weights": "nested.pt"}, "holds more than named tensors"),
        (HALVING | {"weights": "notes.txt"}, "is not opened"),
        (HALVING | {"weights": "nan.safetensors"}, "score 'edm': the network's weight 'share' holds NaN"),
        (HALVING | {"arguments": {"img_resolution": 16}}, r"takes samples of shape \(1, 16, 16\), the data has"),
        (HALVING | {"conditional": True}, "score 'edm' does not know class 3: it has classes 0 to 2"),
        (HALVING | {"arguments": {"sigma_max": 1.0}}, "score 'edm': noise-to-signal ratio 2 is outside"),
        (HALVING | {"arguments": {"img_resolution": [8, 8]}}, "score 'edm' cannot be wrapped .TypeError"),
        ({"kind": "callable", "factory": "{m}:asserting"}, "score 'callable': the network fails .*AssertionError: of its own"),
        ({"kind": "callable", "factory": "{m}:score", "autocast": "bfloat16"}, "gave a whole score, which autocast cannot change"),
        (HALVING | {"weights": "letters.pt"}, "letters.pt is not opened: torch does not load it"),
        (HALVING | {"guidance": 3.0}, "guidance 3 and is given no classes: add conditional: true"),
        ({"kind": "network", "path": "w.safetensors"}, "does not say how its network is built"),
        ({"kind": "diffusers", "path": "absent"}, "score 'diffusers': absent is not a folder"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_before_any_work(score, said, folder, tmp_path):
    safetensors.torch.save_file({"other": torch.zeros(1)}, "w.safetensors")
    safetensors.torch.save_file({"share": torch.tensor([torch.nan])}, "nan.safetensors")
    torch.save({"ema": {"share": torch.zeros(1)}}, "nested.pt")
    Path("broken.safetensors").write_bytes(b"junk")
    Path("notes.txt").write_text("no weights")
    Path("letters.pt").write_text("no weights either")
    score = json.loads(json.dumps(score).replace("{m}", folder))
    before = set(tmp_path.iterdir())
    with refused(said.replace("{m}", folder)):
        gt.run(SETTINGS | {"scores": [score]}, tmp_path / "run.nc", progress=False)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ({"kind": "edm", "path": "a.pkl", "weights": "w.pt"}, "path holds a whole network"),
        ({"kind": "callable", "path": "a.pkl", "arguments": {"width": 3}}, "path holds a whole network"),
        ({"kind": "edm", "factory": "a:b", "path": "a.pkl"}, "exactly one of factory and path"),
        ({"kind": "azula", "factory": "a:b", "weights_key": "ema"}, "no weights are given"),
        ({"kind": "edm", "factory": "a.b"}, "'a.b' does not name a function: write package.module:function"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(score, said):
    with pytest.raises(UserError, match=said):
        gt.Experiment.load({"scores": [score]})


def test_a_network_that_fails_on_the_way_is_told_with_its_name(folder):
    said = r"score 'callable': the network fails on \d+ states .*too many for it.*finished before are kept"
    with pytest.raises(UserError, match=said):
        execute({"kind": "callable", "factory": f"{folder}:late", "micro_batch": 8})


def test_an_exported_program_runs_where_it_is_trusted(folder):
    class Call(torch.nn.Module):
        def forward(self, x, t):
            return x / 4

    example = (torch.zeros(3, 1, 8, 8), torch.zeros(3))
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(Call(), example, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, "net.pt2")
    halved(execute({"kind": "callable", "path": "net.pt2"}, trust={"net.pt2": digest("net.pt2")}), 0.25)


def test_a_checkpoint_of_the_training_script_is_a_network(folder):
    shipped = Path(gt.data.__file__).parent / "digits_network.safetensors"
    shutil.copy(shipped, "copy.safetensors")
    ours, copied = (execute({"kind": "network", **path}) for path in ({}, {"path": "copy.safetensors"}))
    assert origin(ours, "network")["level"] == "shipped with gaussian_test, safetensors"
    assert origin(copied, "network") == {"level": "safetensors", "sha256": digest(shipped)}
    np.testing.assert_array_equal(ours.autocorrelation, copied.autocorrelation)


def test_on_the_command_line(folder):
    score = {"kind": "edm", "factory": f"{folder}:halving", "weights": "w.pt", "micro_batch": 4}
    Path("experiment.yaml").write_text(gt.Experiment.load(SETTINGS | {"scores": [score]}).to_yaml())
    torch.save(imported(folder).Evil(), "w.pt")
    told = invoke("run", "experiment.yaml")
    assert told.exit_code == 2
    assert "--trust w.pt SHA256" in told.stderr
    assert "Traceback" not in told.output
    assert not Path("ran_code").exists()
    torch.save({"share": torch.tensor([0.5])}, "w.pt")
    done = invoke("run", "experiment.yaml", "--trust", "w.pt", digest("w.pt"))
    assert done.exit_code == 0, done.output
    result = gt.open_archive("run.nc")
    assert (result.micro_batch == 4).all()
    assert "edm: 4 states a call." in done.output
    assert f"device: {result.attrs['device']}, taken by --device auto" in done.stdout
