"""Numerical analysis of U-Turn diffusion: affine scores, memorization and speciation.

Everything public hangs on this name (``import gaussian_test as gt``). Nothing heavy is imported before it is used:
``import gaussian_test`` loads neither torch nor xarray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import wrapt

from gaussian_test._version import __version__

if TYPE_CHECKING:
    from gaussian_test import analysis, conformance, data, sampler
    from gaussian_test.archive import open_archive
    from gaussian_test.comparison import compare
    from gaussian_test.errors import UserError
    from gaussian_test.experiment import Experiment
    from gaussian_test.html_report.report import report
    from gaussian_test.run_status import status
    from gaussian_test.runner import run
    from gaussian_test.sampler_study import samplers
    from gaussian_test.sweep import Sweep
    from gaussian_test.sweep_data import open_sweep
    from gaussian_test.sweep_run import run_sweep

__all__ = [
    "Experiment",
    "Sweep",
    "UserError",
    "__version__",
    "analysis",
    "compare",
    "conformance",
    "data",
    "open_archive",
    "open_sweep",
    "report",
    "run",
    "run_sweep",
    "sampler",
    "samplers",
    "status",
]

_HOMES = {
    "Experiment": "experiment",
    "Sweep": "sweep",
    "UserError": "errors",
    "compare": "comparison",
    "open_archive": "archive",
    "open_sweep": "sweep_data",
    "report": "html_report.report",
    "run": "runner",
    "run_sweep": "sweep_run",
    "samplers": "sampler_study",
    "status": "run_status",
}


def __getattr__(name: str) -> Any:
    if name in ("analysis", "conformance", "data", "sampler"):
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value  # found at once the next time
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


@wrapt.when_imported("xarray")
def _register_accessor(_: Any) -> None:
    """Give datasets their ``.gaussian_test`` as soon as there are datasets, without importing xarray for it."""
    import_module(f"{__name__}.accessor")
