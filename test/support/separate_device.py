"""A device for machines without a GPU: apart from the CPU, and every meeting of the two is counted.

Its tensors call themselves ``cuda:7`` and take the branches of a GPU; what they hold is in main
memory, and the CPU does their arithmetic, so that results can be compared bit by bit. As on a GPU
an operation takes tensors of one device only, but for 0-dimensional ones of the CPU. What makes the
host wait for a GPU, by the source of torch's CUDA kernels, is counted as a synchronisation.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import d2_ros

DEVICE = torch.device("cuda", 7)

_PACKAGE = str(Path(d2_ros.__file__).parent)
_aten = torch.ops.aten
_SIZED_BY_CONTENT = {  # the host has to learn how large the result is, or what it says
    "nonzero", "masked_select", "_local_scalar_dense", "is_nonzero", "equal", "_unique2",
    "unique_dim", "unique_consecutive", "unique_dim_consecutive", "_linalg_check_errors",
    "bincount", "allclose", "histc", "linalg_inv", "linalg_solve",
}  # fmt: skip
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class MixedDevicesError(RuntimeError):
    """Tensors of the device and of the CPU in one operation."""


class _Apart(torch.Tensor):
    """A tensor of the device; `held` is what it holds, on the CPU."""

    @staticmethod
    def __new__(cls, held):
        apart = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",  # torch has guards for this one without a GPU
            requires_grad=held.requires_grad,
        )
        apart.held = held
        return apart

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise MixedDevicesError(f"{func} outside of `with SeparateDevice()`")

    def __repr__(self, **_):
        return f"_Apart({self.held})"


class SeparateDevice(TorchDispatchMode):
    """Within it, ``device=DEVICE`` works.

    Attributes
    ----------
    uploads, downloads, syncs
        How often each place in the package (``file:line``) has sent something to the device, has
        got something back, and has otherwise waited for it.
    """

    def __init__(self):
        super().__init__()
        self._entered = 0
        self.forget()

    def __enter__(self):
        if self._entered == 0:
            if torch.cuda.is_available():
                torch.cuda.init()
            # torch looks for a GPU before it asks whether a mode takes over.
            self._before = torch.cuda._lazy_init, torch._C._only_lift_cpu_tensors()
            torch.cuda._lazy_init = lambda: None
            torch._C._set_only_lift_cpu_tensors(True)
            torch.__future__.set_overwrite_module_params_on_conversion(True)
        self._entered += 1
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._entered -= 1
        if self._entered == 0:
            torch.cuda._lazy_init, lift = self._before
            torch._C._set_only_lift_cpu_tensors(lift)
            torch.__future__.set_overwrite_module_params_on_conversion(False)

    def forget(self):
        """Start counting at zero."""
        self.uploads, self.downloads, self.syncs = Counter(), Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func.overloadpacket.__name__ in ("pin_memory", "_pin_memory"):
            return args[0].clone()  # so that the copy is one that need not be waited for
        with self:  # in inference mode composite operations arrive whole
            result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return self._run(func, args, kwargs)

    def _run(self, func, args, kwargs):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        target = kwargs.get("device")
        theirs = [isinstance(tensor, _Apart) for tensor in tensors]
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_") and tensors:
            there = target is None and theirs[0] if name == "_to_copy" else theirs[0]
            there = there or _is_ours(target)
            waits = not kwargs.get("non_blocking", name == "copy_" and len(args) > 2 and args[2])
            if tensors[-1].numel():  # torch sends nothing else
                self._count_copy(there, theirs[-1], waits)
        else:
            there = any(theirs) or _is_ours(target)
            _refuse_mixing(func, tensors, theirs)
            if there:
                self._count_waiting(name, args)
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        known = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, _Apart)}
        args, kwargs = tree_map_only(_Apart, lambda tensor: tensor.held, (args, kwargs))
        result = func(*args, **kwargs)
        if not there or name in ("_local_scalar_dense", "is_nonzero", "equal"):
            return result

        # What was changed in place, or written to `out`, stays the tensor that it was.
        def apart(held):
            return known[id(held)] if id(held) in known else _Apart(held)

        return tree_map_only(torch.Tensor, apart, result)

    def _count_copy(self, to_device, from_device, waits):
        if to_device and not from_device:
            self.uploads[_place()] += 1
            if waits:
                self.syncs[_place()] += 1
        if from_device and not to_device:
            self.downloads[_place()] += 1

    def _count_waiting(self, name, args):
        masks = name in _INDEXED and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in _SIZED_BY_CONTENT or masks or (name == "repeat_interleave" and len(args) < 2):
            self.syncs[_place()] += 1


def _is_ours(device):
    return device is not None and torch.device(device).type in (DEVICE.type, "meta")


def _refuse_mixing(func, tensors, theirs):
    strange = [t for t, ours in zip(tensors, theirs, strict=True) if not ours and t.ndim > 0]
    if any(theirs) and strange:
        raise MixedDevicesError(
            f"{func} at {_place()} got tensors of {DEVICE} and a {tuple(strange[0].shape)} of cpu"
        )


def _place():
    """The innermost line of the package that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            return f"{file[len(_PACKAGE) + 1 :]}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"
