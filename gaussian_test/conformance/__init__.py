"""Conformance suites for custom processes, scores, kernels and observables.

Each suite checks the laws that this project tests on its own objects, with fixed seeds and in seconds. It raises
:class:`ConformanceError` at the first broken law, with its name, the place and the numbers.
"""

from gaussian_test.conformance.kernel import KERNEL_LAWS as KERNEL_LAWS, check_kernel
from gaussian_test.conformance.laws import ConformanceError
from gaussian_test.conformance.observable import OBSERVABLE_LAWS as OBSERVABLE_LAWS, check_observable
from gaussian_test.conformance.process import PROCESS_LAWS as PROCESS_LAWS, check_process
from gaussian_test.conformance.score import SCORE_LAWS as SCORE_LAWS, check_score

__all__ = ["ConformanceError", "check_kernel", "check_observable", "check_process", "check_score"]
