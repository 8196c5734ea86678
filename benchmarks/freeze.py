"""Freeze what a change of structure must not change: about ten small runs, and digests of all that they say.

python benchmarks/freeze.py FOLDER                      run and write archives, texts, pages and digests.json
python benchmarks/freeze.py FOLDER --against OTHER      also list what differs from an earlier folder (exit code 1)
"""

import argparse
import hashlib
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import xarray as xr

HERE = Path(__file__).resolve().parent
LEVELS = {"noise_to_signal": [0.1, 0.4, 0.9, 2.0, 6.0, 15.0]}
SMALL = {
    "samples": 40,
    "shard_size": 16,
    "seed": 5,
    "turn_times": LEVELS,
    "keep": {"pictures": 3},
    "statistics": {"bootstrap": 200},
}
THREE = [{"kind": "empirical"}, {"kind": "network", "micro_batch": 64}, {"kind": "gaussian"}]
EXPERIMENTS = {
    "default": {},
    "network": {
        **SMALL,
        "scores": [*THREE, {"kind": "empirical", "name": "of a class", "conditional": True}],
        "keep": {"pictures": 2, "trajectory": True, "eigenvectors": True, "end_points": True},
        "reverse": {"steps": 8},
    },
    "paper": {**SMALL, "reverse": {"preset": "paper", "steps": 24}, "samples": 24, "observables": ["balance", "affinity"]},
    "gturn": {**SMALL, "start": "gaussian", "reverse": {"kind": "heun", "steps": 8}},
    "isotropic": {**SMALL, "start": "isotropic", "scores": THREE, "reverse": {"steps": 8}},
    "all": {
        **SMALL,
        "scores": THREE,
        "repeats": 2,
        "observables": "all",
        "chains": {"length": 5, "turn_times": 3},
        "reverse": {"steps": 6},
        "end_points": 20,
        "classifier": {"kind": "knn"},
    },
    "chains": {**SMALL, "observables": ["chains"], "reverse": {"kind": "exponential_sde", "steps": 6}, "samples": 16},
    "custom": {
        **SMALL,
        "process": {"kind": "factory", "factory": "custom_things:noising", "arguments": {"time_max": 0.99}},
        "reverse": {"kind": "factory", "factory": "custom_things:steps", "arguments": {"clock": "time"}, "steps": 6},
        "custom_observables": {"contrast": {"factory": "custom_things:contrast"}},
        "features": {"kind": "factory", "factory": "custom_things:halves"},
        "classifier": {"kind": "factory", "factory": "custom_things:classifier"},
    },
    "ornstein": {
        **SMALL,
        "process": {"kind": "ornstein_uhlenbeck"},
        "scores": [{"kind": "empirical"}, {"kind": "mixture"}, {"kind": "gaussian", "shrinkage": "oas", "name": "shrunk"}],
        "reverse": {"kind": "ancestral", "steps": 6},
        "statistics": {"bootstrap": 200, "memorization": "any", "speciation": "same", "affine": "uturn"},
        "repeats": 2,
    },
}
SWEEP = {"sweep": {"reverse.kind": ["sde", "heun"], "seed": [0, 1]}, **SMALL, "observables": "none", "reverse": {"steps": 6}}


def digest(data: bytes) -> str:
    """Return the sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def of_datasets(tree: dict[str, xr.Dataset]) -> dict[str, str]:
    """Return the digest of every variable of every group: its values, and its attributes."""
    found = {}
    for group, dataset in tree.items():
        for name, variable in dataset.variables.items():
            content = (
                f"{variable.dims} {variable.dtype} {variable.shape}".encode() + np.ascontiguousarray(variable.values).tobytes()
            )
            found[f"{group}/{name}"] = digest(content)
            found[f"{group}/{name} attributes"] = json.dumps(variable.attrs, sort_keys=True)
    return found


def without_dates(text: str, result: xr.Dataset) -> str:
    """Return a text without its date and without digests, which hold names of files of the product."""
    return re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", text.replace(result.attrs["date_created"], "DATE"))


def run_all(folder: Path) -> dict[str, dict[str, str]]:
    """Run everything into a folder and return what is to be compared, by experiment."""
    import netCDF4

    import gaussian_test as gt

    truth = gt.data.load("digits")
    np.savez("x.npz", x=truth["x"].values, label=truth["label"].values)
    of_file = {**SMALL, "data": {"source": "file", "path": "x.npz"}, "memory": "900KB", "observables": ["affinity", "normality"]}
    found = {}
    for name, settings in (EXPERIMENTS | {"streamed": of_file}).items():
        path = Path(f"{name}.nc")
        result = gt.run(settings, path, progress=False, overwrite=True)
        with netCDF4.Dataset(path) as file:
            groups = list(file.groups)
        tree = {"": result} | {group: result.gaussian_test.group(group) for group in groups}
        shown, as_json = (result.gaussian_test.show(every=True), without_dates(result.gaussian_test.to_json(), result))
        page = without_dates(gt.report(path, f"{name}.html").read_text(), result)
        for ending, text in (("txt", shown), ("json", as_json), ("html", page)):
            Path(f"{name}.{ending}").write_text(text)
        attributes = {
            f"attribute {key}": str(value)
            for key, value in result.attrs.items()
            if key not in ("date_created", "identity", "score_digest")
        }
        found[name] = of_datasets(tree) | attributes
        found[name] |= {"show": digest(shown.encode()), "json": digest(as_json.encode()), "report": digest(page.encode())}
        print(name, flush=True)
    archives = gt.run_sweep(SWEEP, "sweep", workers=2, progress=False, overwrite=True)
    for path in archives:
        found[f"sweep {path.stem}"] = of_datasets({"": gt.open_archive(path)})
    for a, b in (("all.nc", "network.nc"), ("sweep/" + archives[0].name, "sweep/" + archives[1].name)):
        found[f"compare {a} {b}"] = of_datasets({"": gt.compare(gt.open_archive(a), gt.open_archive(b))})
    found["samplers"] = of_datasets({"": gt.samplers(steps=[4, 8])})
    (folder / "digests.json").write_text(json.dumps(found, indent=1, sort_keys=True))
    return found


def differences(new: dict[str, dict[str, str]], old: dict[str, dict[str, str]]) -> list[str]:
    """Return what is not as it was, a line each."""
    lines = []
    for name in {**old, **new}:
        before, after = old.get(name, {}), new.get(name, {})
        for key in {**before, **after}:
            if before.get(key) != after.get(key):
                what = "is new" if key not in before else "is gone" if key not in after else "differs"
                shown = "attribute" in key and what == "differs"
                lines.append(f"{name}: {key} {what}" + (f"\n    {before[key]}\n    {after[key]}" if shown else ""))
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = options.folder.resolve()
    other = json.loads((options.against / "digests.json").read_text()) if options.against else None
    os.environ["PYTHONPATH"] = str(HERE)
    sys.path.insert(0, str(HERE))
    os.chdir(folder)
    import torch

    torch.set_num_threads(1)
    now = run_all(folder)
    changed = [] if other is None else differences(now, other)
    print("\n".join(changed) if changed else "as it was")
    sys.exit(bool(changed))
