"""The table of ``run.py`` on whatever device is there, appended to a JSON file with the device and the date.

``python benchmarks/gpu.py [--device cuda] [--out gpu.json]``. Sections whose work is done on the CPU are left out.
"""

from __future__ import annotations

import argparse
import datetime
import json
from dataclasses import asdict
from pathlib import Path

import torch
from measure import HEADER, cells, line, machine, run
from problem import Problem
from run import SECTIONS

ON_DEVICE = ("score", "gaussian", "network")


def main() -> None:
    """Measure, print and append."""
    arguments = argparse.ArgumentParser(description=__doc__)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    arguments.add_argument("--device", default=str(found))
    arguments.add_argument("--out", default="gpu.json", type=Path)
    arguments.add_argument("--tf32", action="store_true", help="products of float32 in TF32, where the device has it")
    given = arguments.parse_args()
    torch.set_grad_enabled(False)
    if given.tf32:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    device = torch.device(given.device)
    problem = Problem(device)
    print(machine(device))
    print(line(HEADER), line(("---",) * len(HEADER)), sep="\n")
    known = json.loads(given.out.read_text()) if given.out.exists() else []
    rows: list[dict[str, object]] = []
    known.append({"machine": machine(device), "tf32": given.tf32, "date": datetime.date.today().isoformat(), "results": rows})
    for section in ON_DEVICE:
        for result in run(SECTIONS[section](problem), device):
            rows.append(asdict(result))
            print(line(cells(result)), flush=True)
            given.out.write_text(json.dumps(known, indent=1))  # what is measured is kept, whatever happens to the rest


if __name__ == "__main__":
    main()
