from . import analysis as analysis, conformance as conformance, data as data, sampler as sampler
from ._version import __version__ as __version__
from .build.convert import convert as convert
from .engine.runner import run as run
from .errors import UserError as UserError
from .experiment.experiment import Experiment as Experiment
from .html_report.page import report as report
from .result.comparison import compare as compare
from .result.sampler_study import samplers as samplers
from .store.archive import open_archive as open_archive
from .sweep.open import open_sweep as open_sweep
from .sweep.run import run_sweep as run_sweep
from .sweep.states import status as status
from .sweep.sweep import Sweep as Sweep
