"""Deferred initialisation: a model is built as usual, and its large tensors are computed later, as far as is needed.

Within `defer_init()` (materialise.py) a large tensor has no memory. It knows what was done to it: what it was filled
with, from which state of the random generator it was drawn, which bytes of a file or which other tensor were copied
into it. Any range of its elements can be computed from that, with the bits that it would have had at once. So each rank
computes its share (distributed.py), and no process ever holds the whole model.

As torchdistx' `deferred_init`, which replays whole tensors; here ranges are. What cannot be put off, such as a product
of matrices, is computed at once from whole tensors: right, and not lean.
"""

# ruff: noqa: SLF001 - torch's own contract with subclasses of tensors
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

LEAST = 1 << 18
"""Elements of the smallest tensor that is put off."""

CHUNK = 1 << 20
"""Elements that are drawn, read or converted at a time."""

TAIL = 16
"""Torch draws normal numbers in blocks of so many, and the last block of a tensor anew: a chunk may not be shorter."""

aten = torch.ops.aten
DRAWING = {aten.normal_.default, aten.uniform_.default}
FILLING = {aten.zero_.default, aten.fill_.Scalar}
ELEMENTWISE = {
    *(aten.add_.Tensor, aten.add_.Scalar, aten.sub_.Tensor, aten.sub_.Scalar, aten.mul_.Tensor, aten.mul_.Scalar),
    *(aten.div_.Tensor, aten.div_.Scalar, aten.clamp_.default, aten.erfinv_.default, aten.neg_.default),
}
FACTORIES: Mapping[Any, tuple[Any, tuple[Any, ...]] | None] = {
    aten.empty.memory_format: None,
    aten.zeros.default: (aten.zero_.default, ()),
    aten.ones.default: (aten.fill_.Scalar, (1,)),
    aten.randn.default: (aten.normal_.default, ()),
    aten.rand.default: (aten.uniform_.default, ()),
}
"""What makes a tensor of a given shape -> what fills it then."""

Change = Callable[[torch.Tensor, int], object]
"""Changes in place a part (flat) of the elements that it is of; the number is where the part begins among these."""


@dataclass(frozen=True, slots=True)
class _Write:
    """Something that was done to elements [first, last) of a storage."""

    first: int
    last: int
    change: Change
    replaces: bool = True  # what they were before does not matter
    drawn: bool = False  # a part costs the drawing of all before it


class _Storage:
    """The elements of a tensor and its views: what was done to them in turn, or themselves."""

    def __init__(self, size: int, dtype: torch.dtype, writes: tuple[_Write, ...] = ()) -> None:
        self.size, self.dtype, self.writes = size, dtype, writes
        self.whole: torch.Tensor | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether a part of it costs the drawing of what is before."""
        return any(write.drawn for write in self.writes)

    def add(self, write: _Write) -> None:
        covered = write.replaces and (write.first, write.last) == (0, self.size)
        self.writes = (write,) if covered else (*self.writes, write)

    def freeze(self) -> _Storage:
        """As it is now."""
        frozen = _Storage(self.size, self.dtype, self.writes)
        frozen.whole = None if self.whole is None else self.whole.clone()
        return frozen

    def read(self, part: torch.Tensor, first: int) -> None:
        """Compute the elements from `first` on into `part`, flat and of the same dtype, on the CPU."""
        last = first + len(part)
        if self.whole is not None:
            part.copy_(self.whole[first:last])
            return
        covering = [
            n for n, write in enumerate(self.writes) if write.replaces and write.first <= first <= last <= write.last
        ]
        if not covering:
            part.fill_(torch.nan if part.is_floating_point() else 0)  # as torch fills what is left empty
        for write in self.writes[covering[-1] if covering else 0 :]:
            start, end = max(first, write.first), min(last, write.last)
            if start < end:
                write.change(part[start - first : end - first], start - write.first)

    def compute(self) -> torch.Tensor:
        """All elements, from now on held."""
        if self.whole is None:
            whole = torch.empty(self.size, dtype=self.dtype)
            self.read(whole, 0)
            self.whole, self.writes = whole, ()
        return self.whole


def _cut_chunks(size: int) -> Iterator[tuple[int, int]]:
    """Chunks in order."""
    first = 0
    while first < size:
        last = size if size - first < CHUNK + TAIL else first + CHUNK
        yield first, last
        first = last


_scratch = dict[torch.dtype, torch.Tensor]()


def _take_scratch(dtype: torch.dtype, size: int) -> torch.Tensor:
    """Memory for a chunk of a tensor of so many elements, the same for all: given back, it would be cut up."""
    size = min(size, CHUNK + TAIL)
    if dtype not in _scratch or len(_scratch[dtype]) < size:
        _scratch[dtype] = torch.empty(size, dtype=dtype)
    return _scratch[dtype][:size]


@dataclass(frozen=True, slots=True)
class _Draw:
    """Random numbers of one call, from the state in which it found the generator."""

    function: Any
    arguments: tuple[Any, ...]
    state: torch.Tensor
    size: int
    dtype: torch.dtype

    def __call__(self, part: torch.Tensor, start: int) -> None:
        generator = torch.Generator()
        generator.set_state(self.state)
        self.draw(generator, part, start)

    def draw(self, generator: torch.Generator, part: torch.Tensor, start: int) -> None:
        """Draw all numbers up to the end of `part`, and keep those that belong into it."""
        end, scratch = start + len(part), _take_scratch(self.dtype, self.size)
        for first, last in _cut_chunks(self.size):
            if first >= end:
                return
            if start <= first and last <= end:
                self.function(part[first - start : last - start], *self.arguments, generator=generator)
                continue
            drawn = self.function(scratch[: last - first], *self.arguments, generator=generator)
            kept = slice(max(first, start), min(last, end))
            if kept.start < kept.stop:
                part[kept.start - start : kept.stop - start] = drawn[kept.start - first : kept.stop - first]

    def skip(self, generator: torch.Generator) -> None:
        """Leave the generator as the call would have."""
        scratch = _take_scratch(self.dtype, self.size)
        for first, last in _cut_chunks(self.size):
            self.function(scratch[: last - first], *self.arguments, generator=generator)


def _copy_part(source: _Storage, offset: int, part: torch.Tensor, start: int) -> None:
    """Part of another storage, in the dtype of this one."""
    if source.dtype == part.dtype:
        source.read(part, offset + start)
        return
    size = len(part) if source.is_drawn else CHUNK
    for first in range(0, len(part), size):
        some = torch.empty(min(size, len(part) - first), dtype=source.dtype)
        source.read(some, offset + start + first)
        part[first : first + size] = some


class DeferredTensor(torch.Tensor):
    """A contiguous tensor on the CPU whose elements are computed later: those of a storage from `first` on."""

    elements: _Storage
    first: int

    def __new__(cls, elements: _Storage, first: int, shape: Sequence[int]) -> Self:
        """No memory is taken."""
        cpu = torch.device("cpu")
        made: Self = torch.Tensor._make_wrapper_subclass(cls, torch.Size(shape), dtype=elements.dtype, device=cpu)
        made.elements, made.first = elements, first
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"DeferredTensor(shape={tuple(self.shape)}, dtype={self.dtype})"

    def read(self, first: int, last: int) -> torch.Tensor:
        """Compute elements [first, last), counted flat; a new tensor of one dimension."""
        with _disable_current_modes():
            part = torch.empty(last - first, dtype=self.dtype)
            self.elements.read(part, self.first + first)
        return part

    def read_into(self, part: torch.Tensor, first: int) -> None:
        """Compute elements from `first` on into a tensor of one dimension, on any device."""
        if part.device.type == "cpu":
            self.elements.read(part, self.first + first)
        else:
            part.copy_(self.read(first, first + len(part)))

    def view_whole(self) -> torch.Tensor:
        """All elements, computed once; what is written to them is written to this tensor."""
        return self.elements.compute()[self.first : self.first + self.numel()].view(self.shape)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **(kwargs or {}))
        if func == torch.Tensor.data.__set__ and isinstance(args[0], DeferredTensor):  # type: ignore[attr-defined]
            _exchange_data(*args)
        return found

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        one: Any = args[0] if args else None
        waits = isinstance(one, DeferredTensor) and one.elements.whole is None
        return (_find_handler(func, args, kwargs or {}) if waits else _compute_whole)(func, args, kwargs or {})


def _find_handler(func: Any, args: Any, kwargs: Any) -> Any:
    """What notes a function of a tensor in place of computing it, if anything does."""
    numbers = not any(isinstance(each, torch.Tensor) for each in args[1:])
    if func.is_view:
        return _make_view
    if func in DRAWING and args[0].dtype == torch.float32:
        return _note_draw
    if func is aten.copy_.default:
        return _copy_into
    if func in FILLING or (func in ELEMENTWISE and numbers):
        return _note_change
    if func is aten.clone.default or (func is aten._to_copy.default and kwargs.keys() <= {"dtype", "device"}):
        return _note_clone if torch.device(kwargs.get("device") or "cpu").type == "cpu" else _compute_whole
    return _compute_whole


def read_columns(matrix: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Columns [first, last) of any matrix; of a deferred one they are computed, a chunk of rows at a time."""
    if not isinstance(matrix, DeferredTensor):
        return matrix[:, first:last]
    rows, width = matrix.shape
    with _disable_current_modes():
        found = torch.empty(rows, min(last, width) - first, dtype=matrix.dtype)
    some = rows if matrix.elements.is_drawn else max(1, CHUNK // width)
    for row in range(0, rows, some):
        end = min(row + some, rows)
        found[row:end] = matrix.read(row * width, end * width).view(-1, width)[:, first:last]
    return found


def _exchange_data(tensor: DeferredTensor, data: torch.Tensor) -> None:
    """Let a tensor be what was assigned to its `data`."""
    if isinstance(data, DeferredTensor):
        tensor.elements, tensor.first = data.elements, data.first
    else:
        tensor.elements, tensor.first = _Storage(data.numel(), data.dtype), 0
        tensor.elements.whole = data.contiguous().view(-1)


def _note_write(tensor: DeferredTensor, change: Change, *, replaces: bool = True, drawn: bool = False) -> None:
    tensor.elements.add(_Write(tensor.first, tensor.first + tensor.numel(), change, replaces, drawn))


def _note_change(func: Any, args: Any, kwargs: Any) -> DeferredTensor:
    one: DeferredTensor = args[0]
    _note_write(one, lambda part, _: func(part, *args[1:], **kwargs), replaces=func in FILLING)
    return one


def _note_draw(func: Any, args: Any, kwargs: Any) -> DeferredTensor:
    one: DeferredTensor = args[0]
    generator = kwargs.get("generator") or torch.default_generator
    draw = _Draw(func, args[1:], generator.get_state(), one.numel(), one.dtype)
    draw.skip(generator)
    _note_write(one, draw, drawn=True)
    return one


def _note_clone(func: Any, args: Any, kwargs: Any) -> DeferredTensor:
    one: DeferredTensor = args[0]
    made = DeferredTensor(_Storage(one.numel(), kwargs.get("dtype") or one.dtype), 0, one.shape)
    return _copy_into(func, (made, one), {})


def _copy_into(_: Any, args: Any, __: Any) -> DeferredTensor:
    one, source = args[:2]
    if isinstance(source, DeferredTensor) and source.shape == one.shape:
        frozen = source.elements.freeze()
        _note_write(one, partial(_copy_part, frozen, source.first), drawn=frozen.is_drawn)
    else:
        held = _read_whole(source).expand(one.shape).to(one.dtype, copy=True).contiguous().view(-1)
        _note_write(one, lambda part, start: part.copy_(held[start : start + len(part)]))
    return one  # type: ignore[no-any-return]


def _make_view(func: Any, args: Any, kwargs: Any) -> Any:
    """A view that is contiguous as well; of another one the whole is computed."""
    one = args[0]
    form = torch.empty(one.elements.size, dtype=one.dtype, device="meta").as_strided(one.shape, one.stride(), one.first)
    found = func(form, *args[1:], **kwargs)
    views = found if isinstance(found, (list, tuple)) else [found]
    if not all(view.is_contiguous() for view in views):
        return func(one.view_whole(), *args[1:], **kwargs)
    made = [DeferredTensor(one.elements, view.storage_offset(), view.shape) for view in views]
    return made if isinstance(found, (list, tuple)) else made[0]


def _compute_whole(func: Any, args: Any, kwargs: Any) -> Any:
    """Call a function with whole tensors. That which it changes, or gives a view of, is held from now on."""
    rest, named = tree_map(_read_whole, args[1:]), tree_map(_read_whole, kwargs)
    if not (func._schema.is_mutable or func.is_view):
        return func(*tree_map(_read_whole, args[:1]), *rest, **named)
    found = func(*tree_map(_open_whole, args[:1]), *rest, **named)
    return args[0] if func._schema.is_mutable else found


def _open_whole(value: Any) -> Any:
    return value.view_whole() if isinstance(value, DeferredTensor) else value


def _read_whole(value: Any) -> Any:
    return value.read(0, value.numel()).view(value.shape) if isinstance(value, DeferredTensor) else value


class Deferring(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes tensors of LEAST elements and more, in floating point and on the CPU, deferred ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in FACTORIES or torch.device(kwargs.get("device") or "cpu").type != "cpu":
            return func(*args, **kwargs)
        shape, dtype = torch.Size(args[0]), kwargs.get("dtype") or torch.get_default_dtype()
        if not is_deferred(shape, dtype):
            return func(*args, **kwargs)
        made, filled = DeferredTensor(_Storage(shape.numel(), dtype), 0, shape), FACTORIES[func]
        if filled:
            filled[0](made, *filled[1])
        return made


def is_deferred(shape: torch.Size, dtype: torch.dtype) -> bool:
    """Whether a tensor is large enough to be put off."""
    return shape.numel() >= LEAST and dtype.is_floating_point


def defer_reading(shape: torch.Size, dtype: torch.dtype, read: Change) -> DeferredTensor:
    """A tensor whose elements `read` gets from elsewhere, part by part."""
    return DeferredTensor(_Storage(shape.numel(), dtype, (_Write(0, shape.numel(), read),)), 0, shape)
