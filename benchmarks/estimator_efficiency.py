"""Score evaluations for the same standard error: simulated U-Turns against one evaluation per start.

Both estimate the auto-correlation of the same score from the same starts. The standard errors are those of the archive, so what
an error costs is its square times the evaluations of a start: 1, or the steps of the reverse run. Run it with ``make bench``.
"""

from __future__ import annotations

import numpy as np

import gaussian_test as gt

NOISE_TO_SIGNAL = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
STARTS, STEPS = 512, 64
HEADER = (
    "score",
    "noise-to-signal",
    "C",
    "error, simulated",
    "error, one evaluation",
    "evaluations saved",
    "without control variate",
)


def rows(starts: int = STARTS, steps: int = STEPS) -> list[tuple[str, ...]]:
    """Return the lines of the table: digits, the exact score and the shipped network, reverse SDE."""
    result = gt.run(
        {
            "data": {"source": "digits"},
            "scores": [{"kind": "empirical"}, {"kind": "network"}],
            "turn_times": {"noise_to_signal": NOISE_TO_SIGNAL},
            "reverse": {"kind": "sde", "steps": steps},
            "samples": starts,
        },
        progress=False,
    )
    lines = []
    for score in result["score"].values:
        row = result.sel(score=score)
        evaluations = row["reverse_steps"].values
        simulated, one, plain = (
            row[f"{name}_se"].values for name in ("autocorrelation", "gap_one_shot", "autocorrelation_one_shot")
        )
        saved, uncontrolled = evaluations * (simulated / one) ** 2, evaluations * (simulated / plain) ** 2
        for index, nu in enumerate(np.asarray(row["noise_to_signal"])):
            lines.append(
                (
                    str(score),
                    f"{nu:.3g}",
                    f"{float(row['autocorrelation_one_shot'][index]):.4f}",
                    f"{simulated[index]:.2g}",
                    f"{one[index]:.2g}",
                    f"{saved[index]:,.0f}",
                    f"{uncontrolled[index]:,.0f}",
                )
            )
    return lines


def main() -> None:
    """Print the table."""
    for cells in (HEADER, *rows()):
        print("".join(cell.rjust(24) for cell in cells))


if __name__ == "__main__":
    main()
