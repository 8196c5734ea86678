"""The laws that a process, a score, a reverse kernel or an observable of one's own has to keep, to be called from any test.

Each suite runs the laws that this project's own tests state of its own objects, with seeds of its own and in seconds, and raises
:class:`ConformanceError` at the first that is broken: its name, where, and the numbers.
"""

from gaussian_test.conformance.kernel import KERNEL_LAWS as KERNEL_LAWS, check_kernel
from gaussian_test.conformance.laws import ConformanceError
from gaussian_test.conformance.observable import OBSERVABLE_LAWS as OBSERVABLE_LAWS, check_observable
from gaussian_test.conformance.process import PROCESS_LAWS as PROCESS_LAWS, check_process
from gaussian_test.conformance.score import SCORE_LAWS as SCORE_LAWS, check_score

__all__ = ["ConformanceError", "check_kernel", "check_observable", "check_process", "check_score"]
