"""The pretended card of the CuPy stand-in: its memory, its streams and graphs, and a list of what happened on it.

Work is done at once, in the order in which it is asked for. While a stream captures, what is asked for with it current
is recorded and not done; a graph does it. What a card cannot capture, or what a back end of this project must not do
meanwhile, is refused.
"""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count as numbers

import numpy as np

from . import exact

UNSUPPORTED = "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
IMPLICIT = (
    "cudaErrorStreamCaptureImplicit: operation would make the legacy stream depend on a capturing blocking stream"
)
INVALIDATED = "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture"


@dataclass
class Card:
    """What tests may change, to pretend a small card."""

    name: str = "CUDA on the CPU"
    multiprocessors: int = 4
    shared_memory: int = 227 << 10  # bytes, of one block at most
    memory: int = 80 * 10**9  # bytes
    compute_capability: str = "90"
    used: int = field(default=0, init=False)  # bytes of memory, by arrays that are alive

    @property
    def free(self) -> int:
        return self.memory - self.used


card = Card()

# What happened: ("launch", name, grid, block, shared bytes), ("op", name), ("gemm", shape, shape), ("alloc" or "h2d" or
# "d2h", bytes), ("sync", why), ("graph", number of nodes); and ("captured", ...), with all this behind it, of what was
# recorded instead.
events: list[tuple] = []


def clear() -> None:
    events.clear()


def count(kind: str, name=None) -> int:
    """How many events there are of a kind, or of a kind and with this second entry, such as a kernel's name."""
    return sum(event[0] == kind and name in (None, event[1]) for event in events)


class CUDARuntimeError(RuntimeError):
    """As CuPy raises it."""


class OutOfMemoryError(MemoryError):
    """As CuPy raises it."""


# Memory
# ----------------------------------------------------------------------------------------------------------------------


class Memory:
    """One allocation of exactly `size` bytes, all of them 0xFF: NaN as a float. It dies with the last array in it."""

    def __init__(self, size: int):
        self.size, self._taken = size, 0
        if size > card.free:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: {card.used:,} bytes).")
        self._room = exact.take(size)
        self.ptr, self._taken = ctypes.addressof(self._room), -(-size // exact.ALIGNED) * exact.ALIGNED
        card.used += self._taken
        events.append(("alloc", size))

    def __del__(self, card=card):  # which may be gone before this, at the end of the process
        card.used -= self._taken

    def array(self, shape: tuple[int, ...], dtype: np.dtype, order: str = "C") -> np.ndarray:
        """All of it as an array, which does not keep it alive."""
        return exact.view((ctypes.c_ubyte * self.size).from_address(self.ptr), shape, dtype, order)


def allocate(size: int) -> Memory:
    """Raises RuntimeError while the current stream captures: a graph's arrays are there before it."""
    if get_current_stream().is_capturing():
        raise RuntimeError(
            f"{size} bytes are allocated during stream capture: what a graph uses is to be allocated before"
        )
    return Memory(size)


class MemoryPool:
    """CuPy's pool, here without memory of its own."""

    def used_bytes(self) -> int:
        return card.used

    def free_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return card.used

    def free_all_blocks(self, stream=None) -> None:
        pass


_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _pool


# Streams
# ----------------------------------------------------------------------------------------------------------------------


class Stream:
    """As cupy.cuda.Stream."""

    null: Stream
    _numbers = numbers(0x1000, 0x100)

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None):
        self.ptr = 0 if null else 2 if ptds else next(self._numbers)
        self.is_non_blocking = non_blocking and not null and not ptds
        self._nodes: list[_Node] | None = None
        self._invalid = False

    def __enter__(self) -> Stream:
        _current.append(self)
        return self

    def __exit__(self, *_) -> None:
        _current.pop()

    def use(self) -> Stream:
        _current[-1] = self
        return self

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.is_capturing():
            raise CUDARuntimeError("cudaErrorIllegalState: the operation cannot be performed in the present state")
        self._nodes, self._invalid = [], False
        _capturing.append(self)

    def end_capture(self) -> Graph:
        if self._nodes is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the operation cannot be performed in the present state")
        nodes, self._nodes = self._nodes, None
        _capturing.remove(self)
        if self._invalid:
            raise CUDARuntimeError(INVALIDATED)
        graph = Graph.__new__(Graph)
        graph._nodes = nodes
        return graph

    def is_capturing(self) -> bool:
        return self._nodes is not None

    def synchronize(self) -> None:
        if self.is_capturing():
            self._invalid = True
            raise CUDARuntimeError(UNSUPPORTED)
        events.append(("sync", "stream"))

    @property
    def done(self) -> bool:
        return True

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        pass


Stream.null = Stream(null=True)
_current = [Stream.null]
_capturing: list[Stream] = []


def get_current_stream() -> Stream:
    return _current[-1]


@dataclass
class _Node:
    """A piece of recorded work, and the memory that it will need: a graph does not keep that alive, as on the card."""

    event: tuple
    work: Callable[[], object]
    memories: list[weakref.ref[Memory]]


def submit(event: tuple, work: Callable[[], object], memories: list[Memory], stream: Stream | None = None) -> None:
    """Does a piece of work, or records it. memories : what it reads and writes"""
    stream = stream or get_current_stream()
    if stream._nodes is not None:
        stream._nodes.append(_Node(event, work, [weakref.ref(memory) for memory in memories]))
        events.append(("captured", *event))
        return
    if stream.ptr == 0:
        for other in _capturing:
            if not other.is_non_blocking:
                other._invalid = True
                raise CUDARuntimeError(IMPLICIT)
    events.append(event)
    work()


def wait(why: str) -> None:
    """The host waits for the device, which it must not do while the current stream captures. Raises
    CUDARuntimeError."""
    stream = get_current_stream()
    if stream.is_capturing():
        stream._invalid = True
        raise CUDARuntimeError(UNSUPPORTED)
    events.append(("sync", why))


def device_synchronize() -> None:
    for stream in _capturing:
        stream._invalid = True
        raise CUDARuntimeError(UNSUPPORTED)
    events.append(("sync", "device"))


class Graph:
    """As cupy.cuda.Graph."""

    def __init__(self, *_):
        raise NotImplementedError(
            "currently this class cannot be initiated by the user and must be created via stream capture"
        )

    def launch(self, stream: Stream | None = None) -> None:
        """Raises RuntimeError if memory that the graph uses is gone: on the card it would be somebody else's."""
        if (stream or get_current_stream()).is_capturing():
            raise CUDARuntimeError(UNSUPPORTED)
        events.append(("graph", len(self._nodes)))
        for node in self._nodes:
            if any(memory() is None for memory in node.memories):
                raise RuntimeError(f"the graph uses an array that is gone, in {node.event}")
            node.work()

    def upload(self, stream: Stream | None = None) -> None:
        pass


class Event:
    """As cupy.cuda.Event."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False):
        self._time: float | None = None

    def record(self, stream: Stream | None = None) -> None:
        self._time = time.perf_counter()

    def synchronize(self) -> None:
        wait("event")

    @property
    def done(self) -> bool:
        return True


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds."""
    if start_event._time is None or end_event._time is None:
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
    return 1e3 * (end_event._time - start_event._time)


# The card as CuPy describes it
# ------------------------------------------------------------------------------------------------------------


class Device:
    """As cupy.cuda.Device; there is only number 0."""

    def __init__(self, device: int | None = None):
        if device not in (None, 0):
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id = 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_) -> None:
        pass

    def __int__(self) -> int:
        return self.id

    def use(self) -> Device:
        return self

    def synchronize(self) -> None:
        device_synchronize()

    @property
    def compute_capability(self) -> str:
        return card.compute_capability

    @property
    def mem_info(self) -> tuple[int, int]:
        """Bytes free, and all."""
        return card.free, card.memory

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "MultiProcessorCount": card.multiprocessors, "MaxSharedMemoryPerBlockOptin": card.shared_memory,
            "MaxThreadsPerBlock": 1024, "MaxSharedMemoryPerBlock": 48 << 10,
            "MaxSharedMemoryPerMultiprocessor": card.shared_memory + 1024, "WarpSize": 32,
            "MaxThreadsPerMultiProcessor": 2048, "ComputeCapabilityMajor": int(card.compute_capability[:-1]),
            "ComputeCapabilityMinor": int(card.compute_capability[-1]), "CooperativeLaunch": 1,
        }  # fmt: skip


def properties(device: int) -> dict:
    """What cupy.cuda.runtime.getDeviceProperties gives, in part."""
    Device(device)
    return {
        "name": card.name.encode(), "multiProcessorCount": card.multiprocessors,
        "sharedMemPerBlockOptin": card.shared_memory, "totalGlobalMem": card.memory,
        "major": int(card.compute_capability[:-1]), "minor": int(card.compute_capability[-1]), "warpSize": 32,
        "sharedMemPerBlock": 48 << 10, "sharedMemPerMultiprocessor": card.shared_memory + 1024,
        "maxThreadsPerBlock": 1024,
    }  # fmt: skip
