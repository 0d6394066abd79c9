"""Counts the memory that a computation would take, without computing anything.

What runs on torch's meta device has shapes and no values: a step of a network that takes a
second on a CPU is run through in a fraction of that, and any network can be.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from napari_volseg.sparse.convolution import channels_last, is_small

if TYPE_CHECKING:
    from collections.abc import Iterable

META = torch.device("meta")

MARKED = 0.1
"""Part of a mask that counts as set, for there are no values: most masks are of labels, and
those are sparse."""

LARGE = 2**24
"""Elements from which on a tensor's values are not computed with, though it has some."""

aten = torch.ops.aten

CONVOLUTIONS = {aten.convolution.default: 0, aten.convolution_backward.default: 1}
"""And where among their arguments the image is; the weight follows it."""

KEEPS_SHAPE = {torch.Tag.pointwise, torch.Tag.nondeterministic_seeded}
"""Tags of what leaves a tensor its shape where it works in place; the second: random numbers."""

INDEXING = (
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
)

SEVERAL = list, tuple
"""What arguments and results come in, if there is more than one."""

RESULTS: dict[Any, tuple[Any, list[tuple[Any, ...]]]] = {}
"""Of what shapes an operation makes which, for all ledgers: asking torch is what takes time."""

MOST_RESULTS = 20_000
"""That are remembered; the settings of a network ask for some hundred."""


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside of it, every tensor on the meta device is counted while it lives.

    What asks for values gets some: masks are true at a part of their places, numbers are 1.

    Parameters
    ----------
    device : torch.device
        For which is counted.

    Attributes
    ----------
    held, peak : int
        Bytes now, and at most.
    half : bool
        Whether what is made from now on counts as of 16 bits, as in mixed precision.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self.half = False
        self._on_cpu = device.type == "cpu"
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing here is compiled, and what would guard against it takes seconds to import.
        return False

    def forget_peak(self) -> None:
        """Begin a new peak at what is held now."""
        self.peak = self.held

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        halved = self.half and tensor.dtype == torch.float32
        size = storage.nbytes() // (2 if halved else 1)
        self._known.add(key)
        weakref.finalize(storage, self._drop, key, size)
        self.held += size
        self.peak = max(self.peak, self.held)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # What holds values and is large is the labels of a volume: no need to look at them.
        before = [
            t for t in tensors_in((*args, *kwargs.values())) if t.is_meta or t.numel() > LARGE
        ]
        for tensor in before:
            if tensor.is_meta:
                self._hold(tensor)
        made = self._answer(func, args, kwargs) if before else func(*args, **kwargs)
        for tensor in tensors_in((made,)):
            if tensor.is_meta:
                self._hold(tensor)
        if self._on_cpu and func in CONVOLUTIONS:
            image = CONVOLUTIONS[func]
            copies = copied_bytes(args[image], args[image + 1], made, backward=image > 0)
            self.peak = max(self.peak, self.held + copies)
        return made

    def _answer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what an operation on the meta device gives."""
        first = args[0]
        if func is aten._local_scalar_dense.default:
            return torch.ones((), dtype=first.dtype).item()
        if func is aten.nonzero.default:
            return torch.stack(places(first), 1)
        if func is aten.bincount.default:
            return torch.empty(args[2], dtype=torch.long, device=META)
        if func is aten._to_copy.default and kwargs.get("device", META) != META:
            return torch.zeros(first.shape, dtype=kwargs.get("dtype") or first.dtype)
        if func in INDEXING:
            args = (first, by_places(args[1]), *args[2:])
        in_place = func._schema.is_mutable and func.__name__.split(".")[0].endswith("_")
        if in_place and (first.device != META or not KEEPS_SHAPE.isdisjoint(func.tags)):
            return first
        args, kwargs = lifted(args), {name: lifted(value) for name, value in kwargs.items()}
        if func._schema.is_mutable:
            return func(*args, **kwargs)
        made = self._call(func, args, kwargs)
        return as_laid_out(args[CONVOLUTIONS[func]], made) if func in CONVOLUTIONS else made

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call what changes nothing; of the same shapes, the result has the same shape again."""
        key = (func, signature(args), signature(tuple(kwargs.items())))
        known = RESULTS.get(key)
        if known is None:
            made = func(*args, **kwargs)
            found = tensors_in((made,))
            own = {t.untyped_storage()._cdata for t in tensors_in((*args, *kwargs.values()))}
            several = isinstance(made, SEVERAL)
            plain = len(found) == (len(made) if several else 1)
            if plain and not own & {t.untyped_storage()._cdata for t in found}:
                if len(RESULTS) >= MOST_RESULTS:
                    RESULTS.clear()
                kept = [(t.shape, t.stride(), t.dtype) for t in found]
                RESULTS[key] = (type(made) if several else None, kept)
            return made
        several, kept = known
        made = [torch.empty_strided(s, t, dtype=d, device=META) for s, t, d in kept]
        return several(made) if several else made[0]


def as_laid_out(image: Tensor, made: Any) -> Any:
    """Lay the result of a convolution out as its input is, which the meta device forgets."""
    if not channels_last(image):
        return made
    if isinstance(made, Tensor):
        return made.contiguous(memory_format=torch.channels_last_3d)
    gradient, *others = made
    return (None if gradient is None else as_laid_out(image, gradient), *others)


def copied_bytes(image: Tensor, weight: Tensor, made: Any, *, backward: bool) -> int:
    """Bytes of the copies that a convolution on a CPU works on while it runs.

    torch's own, for the gradients of a single small image, writes out what each voxel sees;
    oneDNN's puts all that has not its channels last in blocks, and takes it out again.
    """
    if backward and is_small(image):
        return 4 * image[0, 0].numel() * weight[0].numel()
    if channels_last(image):
        return 0
    return sum(4 * t.numel() for t in (image, *tensors_in((made,))))


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among arguments or results; asked of every operation."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, SEVERAL):
            found += tensors_in(value)
    return found


def signature(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return all that the shape of a result can depend on, to look it up by."""
    parts: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            parts.append((value.shape, value.stride(), value.dtype))
        elif isinstance(value, SEVERAL):
            parts.append(signature(value))
        else:
            parts.append((type(value), value))
    return tuple(parts)


def lifted(values: Any) -> Any:
    """Bring tensors that hold values to the meta device; single numbers may stay."""
    if isinstance(values, Tensor):
        return values if values.is_meta or not values.ndim else values.to(META)
    if isinstance(values, SEVERAL):
        return type(values)([lifted(value) for value in values])
    return values


def places(mask: Tensor) -> list[Tensor]:
    """Return places (N,) along each axis where a mask counts as set."""
    count = max(1, int(mask.numel() * MARKED))
    return [torch.empty(count, dtype=torch.long, device=META) for _ in range(mask.ndim)]


def by_places(indices: Any) -> list[Any]:
    """Replace masks among indices by the places that they mark."""
    found: list[Any] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool:
            found += places(index)
        else:
            found.append(index)
    return found
