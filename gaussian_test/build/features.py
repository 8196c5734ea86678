"""Feature extractor, end-point classifier and custom observables of a run."""

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gaussian_test import analysis
from gaussian_test.analysis.declarations import ENDINGS
from gaussian_test.analysis.observables.custom import custom_record
from gaussian_test.analysis.observables.quality.quality import principal_features
from gaussian_test.analysis.observables.record import Observable
from gaussian_test.analysis.observables.registry import taken
from gaussian_test.analysis.uturn.classifier import FittedClassifier, cross_validated_accuracy, make_classifier, nearest_accuracy
from gaussian_test.analysis.uturn.reference import Reference
from gaussian_test.build.factories import call_factory, lawful, source_digest
from gaussian_test.conformance import check_observable
from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment import observables
from gaussian_test.experiment.observables import Classifier, Features

ROWS = 256  # samples per call of an extractor
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Extractor:
    """A feature extractor."""

    name: str  # what to call it
    # from samples (batch, ``*event``), a tensor on the device of the run, to features (batch, F)
    call: Callable[[torch.Tensor], Any]
    device: torch.device  # device of its samples

    def __call__(self, x: Any) -> Array:
        """Return the features of samples (n, ``*event``), any array, in batches: float64, (n, F)."""
        blocks = []
        for start in range(0, len(x), ROWS):
            block = torch.from_numpy(np.array(x[start : start + ROWS])).to(self.device)
            with torch.inference_mode():
                found = self.call(block)
            values = found.double().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found, dtype=np.float64)
            if values.ndim != 2 or len(values) != len(block) or not np.isfinite(values).all():
                raise UserError(
                    f"features {self.name}: {len(block)} samples gave shape {values.shape}, or NaN or infinite values: "
                    "return finite features (batch, F)"
                )
            blocks.append(values)
        return np.concatenate(blocks)


Decode = Callable[[torch.Tensor], torch.Tensor]  # from latents to samples, on the CPU


def build_features(
    settings: Features,
    given: Callable[[torch.Tensor], Any] | None,
    moments: analysis.Moments,
    device: torch.device,
    sample: Any,
    decode: Decode | None = None,
) -> Extractor:
    """Return the feature extractor of an experiment, or the given one, after a trial on two samples.

    Raises UserError if it cannot be built, or does not return features.
    """
    if given is None and settings.kind == "pixels":
        return Extractor("pixels", lambda x: x.flatten(1), device)
    if given is None and settings.kind == "pca":
        count = min(settings.components, len(moments.eigenvalues))
        project = principal_features(moments, count)
        return Extractor(f"{count} principal components", lambda x: project(x.flatten(1).cpu().numpy()), device)
    made = call_factory(settings.factory or "", settings.arguments) if given is None else given
    name = settings.factory or getattr(made, "__name__", type(made).__name__)
    if not callable(made):
        raise UserError(f"features {name}: a {type(made).__name__} cannot be called: give a torch module or a function")
    if isinstance(made, torch.nn.Module):
        made = made.to(device).eval()
    extractor = Extractor(str(name), lambda x: made(x.float()), device)  # feature networks use float32
    if decode is not None:
        extractor = Extractor(f"{name} of decoded samples", lambda x: made(decode(x).to(device)), device)
    try:
        extractor(sample)
    except UserError:
        raise
    except Exception as error:  # user code may raise anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"features {name} fail on two samples of shape {np.shape(sample)} ({reason}): fix the extractor") from error
    return extractor


@dataclass(frozen=True)
class Classified:
    """The end-point classifier.

    Attributes
    ----------
    accuracy, error : float
        Held-out accuracy and its standard error.
    """

    name: str  # its name; empty without classes
    classify: Callable[[torch.Tensor], torch.Tensor] | None  # as :attr:`Reference.classify`
    accuracy: float
    error: float


def build_classifier(settings: Classifier, given: Any, reference: Reference, x: Any, seed: int, assess: bool = True) -> Classified:
    """Return the fitted end-point classifier of an experiment, or the given one, with its held-out accuracy.

    Raises UserError if there are no labels, or it cannot be fitted.
    """
    labels = reference.labels
    if given is None and settings.kind == "nearest":
        if labels is None:
            return Classified("", None, np.nan, np.nan)
        found = nearest_accuracy(reference.samples, labels) if assess else (np.nan, np.nan)
        return Classified("nearest ground-truth sample", None, *found)
    if labels is None:
        raise UserError("classifier: the data set has no labels to fit it with: give labels or leave classifier out")
    if given is None and settings.kind == "knn" and settings.neighbors > len(labels):
        raise UserError(
            f"classifier.neighbors = {settings.neighbors} is more than the {len(labels)} ground-truth samples: give fewer"
        )
    with user_input():
        if given is not None:
            classifier = given
        elif settings.kind == "factory":
            classifier = call_factory(settings.factory or "", settings.arguments)
        else:
            classifier = make_classifier("svc" if settings.kind == "svc" else "knn", neighbors=settings.neighbors, seed=seed)
    name = " ".join(repr(classifier).split())
    if not (hasattr(classifier, "fit") and hasattr(classifier, "predict") and hasattr(classifier, "get_params")):
        raise UserError(f"classifier {name[:80]} is none of scikit-learn's: give one with fit, predict and get_params")
    try:
        fitted = FittedClassifier(classifier, x, labels)
        accuracy = cross_validated_accuracy(classifier, x, labels, folds=settings.folds, seed=seed) if assess else (np.nan, np.nan)
    except Exception as error:  # user code may raise anything
        raise UserError(f"classifier {name[:80]} cannot be fitted ({' '.join(str(error).split())[:160]}): fix it") from error
    return Classified(name, fitted, *accuracy)


Measure = Callable[[torch.Tensor, torch.Tensor], Any]
ROWS = 256  # U-Turns per call
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")


@dataclass(frozen=True)
class BuiltObservable:
    """A custom observable."""

    name: str  # its name in the archive
    call: Measure  # from starts and ends (batch, ``*event``), float32, on the device of the run, to numbers (batch,)
    source: str  # its factory, or a note that it was passed from Python
    attributes: dict[str, str]  # ``long_name``, ``units`` and ``comment`` of the variable
    digest: str  # identifies it on resume; empty if nothing can

    @property
    def record(self) -> Observable:
        """Record for measuring and showing it like a built-in observable."""
        return custom_record(self.name, self.attributes, self.source, self)

    def __call__(self, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        """Return one number per U-Turn, computed in batches: float64 on the CPU, (n,)."""
        values = torch.empty(len(end), dtype=torch.float64)
        for first in range(0, len(end), ROWS):
            rows = slice(first, first + ROWS)
            try:
                found = self.call(start[rows].float(), end[rows].float())
            except Exception as error:  # user code may raise anything
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"custom observable {self.name!r} failed ({type(error).__name__}: {reason}): fix it") from error
            block = torch.as_tensor(found).detach().double().cpu()
            if block.shape != values[rows].shape or not bool(torch.isfinite(block).all()):
                raise UserError(
                    f"custom observable {self.name!r}: {len(values[rows])} U-Turns gave shape {tuple(block.shape)}, or NaN or "
                    "infinite values: return one finite number for each; the shards finished before are kept"
                )
            values[rows] = block
        return values


def build_custom_observables(
    settings: Mapping[str, observables.CustomObservable],
    given: Mapping[str, Measure],
    device: torch.device,
    sample: Any,
    decode: Decode | None = None,
) -> tuple[BuiltObservable, ...]:
    """Return the custom observables of an experiment and the given ones, after a trial on two samples.

    Raises UserError if a name is not allowed, or an observable cannot be built or breaks a law of observables.
    """
    built = []
    for name in (*settings, *(name for name in given if name not in settings)):
        _check_name(name)
        if name in given:
            call, source, code = given[name], "given in python", ""
        else:
            made = settings[name]
            call, source = call_factory(made.factory, made.arguments), made.factory
            code = source_digest(made.factory)  # after the import
        if not callable(call):
            raise UserError(
                f"custom observable {name!r}: {source} gave a {type(call).__name__}, which cannot be called: give a function of "
                "the starts and the ends of U-Turns"
            )
        if isinstance(call, torch.nn.Module):
            call = call.to(device).eval()
        x = torch.from_numpy(np.array(sample)).to(device, torch.float32)
        x = x if decode is None else decode(x).to(device)
        event = tuple(x.shape[1:])
        start, end = x.clone(), x.flip(0)
        lawful(lambda c=call, e=event, a=start, b=end: check_observable(c, e, a, b), f"custom observable {name!r}")  # type: ignore[misc]
        used = call if decode is None else _of_decoded(call, decode, device)
        built.append(BuiltObservable(name, used, source, _attributes(name, call), _digest(call, code)))
    return tuple(built)


def _of_decoded(call: Measure, decode: Decode, device: torch.device) -> Measure:
    return lambda start, end: call(decode(start).to(device), decode(end).to(device))


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith(ENDINGS) or name.startswith("sample_"):
        raise UserError(
            f"custom_observables: {name!r:.80} cannot name a variable: give letters, digits and underscores, a letter first, "
            f"without sample_ at the start or {', '.join(ENDINGS)} at the end"
        )
    if name in taken():
        raise UserError(f"custom_observables: the name {name!r} is taken in the archive: give another one")


def _attributes(name: str, call: Measure) -> dict[str, str]:
    """Return a function's own attributes, or else its name, no unit and the first line of its docstring."""
    own = {key: str(getattr(call, key)) for key in ("long_name", "units", "comment") if isinstance(getattr(call, key, None), str)}
    text = (call.__doc__ or "").strip() if inspect.isfunction(call) else ""
    comment = {"comment": text.splitlines()[0]} if text else {}
    return {"long_name": name.replace("_", " "), "units": "1"} | comment | own


def _digest(call: Measure, code: str) -> str:
    """Return the digest of an observable: from its own ``digest``, its tensors, and the file of its factory."""
    digest = hashlib.sha256()
    known = [text for text in (code, str(getattr(call, "digest", ""))) if text]
    for text in known:
        digest.update(text.encode())
    state = call.state_dict() if isinstance(call, torch.nn.Module) else {}
    for key, value in sorted(state.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if known or state else ""
