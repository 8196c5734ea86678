"""Speed against named peers, as ratios, beside the limit of the machine: one table.

Run it with ``make bench``, which writes the table into docs/benchmarks.md. Named sections alone (``run.py score moments``) are
printed, and with ``--write`` take the place of their lines in the page.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import estimator_efficiency
import file_cases
import gaussian_cases
import moment_cases
import network_cases
import score_cases
import state_cases
import torch
from measure import HEADER, Case, cells, line, machine, run
from problem import Problem

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
SECTIONS: dict[str, Callable[[Problem], Iterable[Case]]] = {
    "score": score_cases.cases,
    "moments": moment_cases.cases,
    "gaussian": gaussian_cases.cases,
    "states": state_cases.cases,
    "network": network_cases.cases,
    "files": file_cases.cases,
}


def table(problem: Problem, sections: Iterable[str]) -> list[str]:
    """Measure and print, and return the lines."""
    lines = [line(HEADER), line(("---",) * 2 + ("---:",) + ("---",) + ("---:",) * 5)]
    print("\n".join(lines), flush=True)
    for section in sections:
        for result in run(SECTIONS[section](problem), problem.device):
            lines.append(line(cells(result)))
            print(lines[-1], flush=True)
    return lines


def put(page: Path, name: str, lines: Iterable[str]) -> None:
    """Replace what is between the marks of a name in a page."""
    text = page.read_text(encoding="utf-8")
    marked = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
    if not re.search(marked, text, re.DOTALL):
        raise SystemExit(f"{page} has no place for {name}")
    page.write_text(
        re.sub(marked, lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text, flags=re.DOTALL), encoding="utf-8"
    )


def renewed(page: Path, lines: Iterable[str]) -> None:
    """Replace the lines of a page that are of the same piece, size and peer."""
    new = {_key(text): text for text in lines}
    old = page.read_text(encoding="utf-8").splitlines()
    page.write_text("\n".join(new.get(_key(text), text) for text in old) + "\n", encoding="utf-8")


def _key(text: str) -> tuple[str, ...]:
    columns = [column.strip() for column in text.split("|")]
    return (columns[1], columns[2], columns[4]) if len(columns) == len(HEADER) + 2 else (text,)


def main() -> None:
    """Measure all sections, or those named."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "sections", nargs="*", choices=[*SECTIONS, []], help="of the table; default: all, and the page is written"
    )
    arguments.add_argument("--data", help="a folder of CIFAR-10 in its binary format; default: synthetic images of the same size")
    arguments.add_argument("--write", action="store_true", help="put the lines of the named sections into the page")
    given = arguments.parse_args()
    torch.set_grad_enabled(False)
    problem = Problem(torch.device("cpu"), source=given.data)
    where = machine(problem.device)
    print(where, flush=True)
    lines = table(problem, given.sections or SECTIONS)
    if given.sections:
        if given.write:
            renewed(PAGE, lines)
        return
    put(PAGE, "table", [where, "", *lines])
    rows = estimator_efficiency.rows()
    put(PAGE, "estimator", [line(estimator_efficiency.HEADER), line(("---",) * 7), *map(line, rows)])


if __name__ == "__main__":
    main()
