"""Import, call and conformance check of user factories."""

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gaussian_test import sampler
from gaussian_test.conformance import ConformanceError, check_kernel, check_process
from gaussian_test.errors import UserError


def call_factory(name: str, arguments: Mapping[str, Any]) -> Any:
    """Import a function by name and call it; also search the current folder, after installed modules.

    Raises UserError if it is missing or fails.
    """
    module, _, function = name.partition(":")
    with current_folder():
        try:
            made = getattr(importlib.import_module(module), function)(**arguments)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # user code may raise anything
            raise UserError(f"{name} failed ({type(error).__name__}: {_line(error)}): fix it or its arguments") from error
    return made


def source_digest(factory: str) -> str:
    """Return the sha256 of the source file of an imported factory; empty if there is none."""
    module = sys.modules.get(factory.partition(":")[0])
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and file.endswith(".py") and Path(file).is_file() else ""


@contextmanager
def current_folder() -> Iterator[None]:
    """Also import modules from the current folder, after installed ones."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def custom_process(name: str, arguments: Mapping[str, Any]) -> sampler.Process:
    """Return a custom forward process from a factory, after checking the laws of processes.

    Raises UserError if the factory fails, or its result is no process or breaks a law.
    """
    process = call_factory(name, arguments)
    if not isinstance(process, sampler.Process):
        raise UserError(
            f"process: {name} gave a {type(process).__name__}: give a process derived from gaussian_test.sampler.Process"
        )
    lawful(lambda: check_process(process), f"process: {name}")
    return process


def custom_kernel(name: str, arguments: Mapping[str, Any], process: sampler.Process) -> sampler.ReverseKernel:
    """Return a custom reverse kernel from a factory, after checking the laws of kernels in a process.

    Raises UserError if the factory fails, or its result is no kernel, breaks a law, or claims to be exact.
    """
    kernel = call_factory(name, arguments)
    if not isinstance(kernel, sampler.ReverseKernel):
        raise UserError(
            f"reverse: {name} gave a {type(kernel).__name__}: give a kernel derived from gaussian_test.sampler.ReverseKernel"
        )
    if kernel.exact:
        raise UserError(
            f"reverse: {name} gave a kernel that is exact: whether a posterior can be drawn is the score's to say, "
            "so choose kind: exact, or give a kernel of steps"
        )
    # its order of convergence is not checked: the closed form holds for its actual steps
    with torch.inference_mode():
        lawful(lambda: check_kernel(kernel, process, order=None), f"reverse: {name}")
    return kernel


def lawful(check: Callable[[], None], what: str) -> None:
    """Run a conformance suite on a user's object, and turn a broken law into one sentence.

    Raises UserError if a law is broken, or the object fails.
    """
    try:
        check()
    except ConformanceError as error:
        raise UserError(f"{what}: {error}: fix it") from error
    except Exception as error:  # user code may raise anything
        raise UserError(f"{what} fails ({type(error).__name__}: {_line(error)[:200]}): fix it") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
