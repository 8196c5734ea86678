"""A device without hardware, to see from a CPU what a GPU would be asked to move and to wait for.

Tensors of the device hold their values on the CPU and say that they live elsewhere, so results can be held against the CPU's bit
for bit. What the device does as CUDA does: it refuses operations on tensors of different devices, but for one zero-dimensional CPU
tensor in an elementwise operation and for CPU indices; it logs every copy from and to the host; and it logs every operation whose
answer the host must wait for. Where CUDA is only sometimes harmless the device is strict: it counts every boolean mask as an index.

It shows placement and waiting, nothing else: not the numerics of a GPU, its memory or its speed; and it is not of type "cuda", so
code that asks for that type (pinned memory for the noise) takes its other branch. Copies of the host into memory that is not
pinned wait for the stream on CUDA: they are logged as ``blocking`` unless the code asked for a copy that does not.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "fakedevice"
aten = torch.ops.aten

# Elementwise operations for which CUDA takes one zero-dimensional CPU tensor beside tensors of its own.
_ARITHMETIC = {"add", "sub", "rsub", "mul", "div", "pow", "remainder", "fmod", "floor_divide", "atan2", "hypot", "copysign"}
_COMPARISONS = {"maximum", "minimum", "fmax", "fmin", "eq", "ne", "lt", "le", "gt", "ge"}
_LOGIC = {f"{kind}_{name}" for kind in ("logical", "bitwise") for name in ("and", "or", "xor")}
_FILLS = {"where", "masked_fill", "fill", "addcmul", "addcdiv"}
_SCALARS_WELCOME = {name + end for name in _ARITHMETIC | _COMPARISONS | _LOGIC | _FILLS for end in ("", "_")}
_CONDITIONAL = {"where": 0, "masked_fill": 1, "masked_fill_": 1}  # and where they are given the condition
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
# Composite operations that choose their parts by device: taken whole, so that values stay the CPU's.
_WHOLE = {"scaled_dot_product_attention"}
# CUDA's solvers read back whether they succeeded, and these count or look for something.
_WAITING = {"bincount", "histogram", "_unique", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave", "linalg_eig"}
_PRODUCT = ("/sampler/", "/analysis/", "/gaussian_test/", "/tests/")


class MixedDevices(RuntimeError):
    """An operation was given tensors of the device and of the host."""


@dataclass(frozen=True)
class Event:
    """Something that the host and the device did together.

    ``kind`` is "to device", "to host" or "wait"; ``where`` is the line of this project that asked for it, as "file.py:function".
    """

    kind: str
    operation: str
    shape: tuple
    dtype: torch.dtype | None
    size: int  # bytes
    blocking: bool
    where: str


@cache
def register():
    """Register the device with torch, once in a process; return why it cannot be, or None."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
    except ImportError:
        return f"torch {torch.__version__} has no Python backends any more: the device path goes untested"
    taken = torch._C._get_privateuse1_backend_name()
    if taken not in ("privateuseone", NAME):
        return f"the only name that torch keeps for a backend of one's own is taken by {taken!r}"
    if taken != NAME:
        _setup_privateuseone_for_python_backend(NAME)
    return None


class OnDevice(torch.Tensor):
    """A tensor of the device: ``held`` are its values."""

    @staticmethod
    def __new__(cls, real):
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            device=torch.device(NAME, 0),
        )
        wrapper.held = real
        return wrapper

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a tensor of the device while the device is off: stay within 'with FakeDevice()'")

    def __tensor_flatten__(self):  # tells nn.Module to exchange parameters whole as it moves them, ``held`` included
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return OnDevice(inner["held"])

    def __repr__(self):
        return f"OnDevice(shape={tuple(self.shape)}, dtype={self.dtype})"


class FakeDevice(TorchDispatchMode):
    """The device, on while this context is; ``log`` holds its events and ``operations`` what it computed."""

    @classmethod
    def _should_skip_dynamo(cls):  # torch.compile is of no concern here, and the precaution costs time
        return False

    def __init__(self):
        super().__init__()
        self.log = []
        self.operations = Counter()
        self._lifts = []

    def __enter__(self):
        # torch.tensor and torch.as_tensor make a CPU tensor and move it, rather than make one on a device that they know nothing of
        self._lifts.append(torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(self._lifts.pop())
        return super().__exit__(*error)

    def of_kind(self, kind):
        return [event for event in self.log if event.kind == kind]

    def forget(self):
        """Start a new log."""
        self.log, self.operations = [], Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name, composite, waits = _described(func)
        if composite:
            with self:  # what it is made of is what happens
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        tensors = _tensors([args, kwargs.values()], [])
        here = [value for value in tensors if isinstance(value, OnDevice)]
        asked = kwargs.get("device")
        asked = None if asked is None else torch.device(asked).type
        if not here and asked != NAME:
            return func(*args, **kwargs)
        transfer = name in ("copy_", "_to_copy")
        if not transfer and len(here) < len(tensors):
            self._refuse_mixed(func, name, args, tensors)
        real_kwargs = {key: _real(value) for key, value in kwargs.items()}
        if asked is not None:
            real_kwargs["device"] = torch.device("cpu")
        result = func(*_real(args), **real_kwargs)
        to_here = asked is None or asked == NAME
        if name == "_to_copy" and isinstance(args[0], OnDevice) != to_here:
            self._note("to device" if to_here else "to host", name, result, not kwargs.get("non_blocking"))
        elif name == "copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
            to_here = isinstance(args[0], OnDevice)
            self._note("to device" if to_here else "to host", name, args[1], len(args) < 3 or not args[2])
        elif here and (waits or (name in _INDEXING and _has_mask(args[1]))):
            self._note("wait", name, here[0], True)
            if not _tensors([result], []):  # the host has read it
                self._note("to host", name, torch.empty(1, dtype=here[0].dtype, device="cpu"), True)
        self.operations[name] += 1
        known = {id(_real(value)): value for value in tensors}
        return _handed_out(result, known, to_here)

    def _refuse_mixed(self, func, name, args, tensors):
        strangers = [value for value in tensors if not isinstance(value, OnDevice)]
        described = ", ".join(f"{value.device.type}{tuple(value.shape)}" for value in tensors)
        if name in _INDEXING and isinstance(args[0], OnDevice):
            indices = [value for value in args[1] if value is not None and not isinstance(value, OnDevice)]
            for index in indices:
                self._note("to device", name, index, True)
            strangers = [value for value in strangers if not any(value is index for index in indices)]
            allowed = all(value.ndim == 0 for value in strangers)
        else:
            # a scalar to compute with, not the condition, the mask or what is written to
            barred = args[_CONDITIONAL.get(name, 0)]
            allowed = name in _SCALARS_WELCOME and len(strangers) == 1 and strangers[0].ndim == 0
            allowed = allowed and not (strangers[0] is barred and (name in _CONDITIONAL or name.endswith("_")))
            if allowed and name == "where":
                self._note("to device", name, strangers[0], True)
        if not allowed:
            raise MixedDevices(f"{func} was given tensors of different devices: {described} ({_where()})")

    def _note(self, kind, name, tensor, blocking):
        shape, dtype = tuple(tensor.shape), tensor.dtype
        self.log.append(Event(kind, name, shape, dtype, tensor.numel() * dtype.itemsize, blocking, _where()))


def values(tensor):
    """Return the values of a tensor of the device without asking the device."""
    assert isinstance(tensor, OnDevice), f"{tensor!r} is not on the device"
    assert (tensor.shape, tensor.dtype) == (tensor.held.shape, tensor.held.dtype)
    return tensor.held


@cache
def _described(func):
    """Return an operation's name, whether it is made of others on every device, and whether the host waits for what it says."""
    name = func.overloadpacket.__name__
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    read = torch.Tag.data_dependent_output in func.tags
    shaped = torch.Tag.dynamic_output_shape in func.tags and name not in _INDEXING
    return name, composite and name not in _WHOLE, read or shaped or name in _WAITING or name.startswith("_linalg")


def _has_mask(indices):
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _tensors(value, found):
    """Add the tensors of nested arguments to those found."""
    for part in value:
        if isinstance(part, torch.Tensor):
            found.append(part)
        elif isinstance(part, (tuple, list)):
            _tensors(part, found)
    return found


def _real(value):
    if isinstance(value, OnDevice):
        return value.held
    return type(value)(map(_real, value)) if type(value) in (tuple, list) else value


def _handed_out(value, known, to_here):
    """Return results as tensors of the device or of the host; what was written in place is the tensor that was given."""
    if isinstance(value, torch.Tensor):
        if id(value) in known or not to_here:
            return known.get(id(value), value)
        # in inference mode, a view of a tensor from outside it is not an inference tensor either
        if value.is_inference() == torch.is_inference_mode_enabled():
            return OnDevice(value)
        with torch.inference_mode(value.is_inference()):
            return OnDevice(value)
    return type(value)(_handed_out(part, known, to_here) for part in value) if type(value) in (tuple, list) else value


def _where():
    """Return the innermost line of this project, but of this file, that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and "site-packages" not in file and any(part in file for part in _PRODUCT):
            return f"{file.rsplit('/', 1)[1]}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "outside"
