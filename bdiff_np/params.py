"""Named arrays that are views of one flat buffer, so that the optimiser, a checksum or a sum over ranks is one pass
over one array."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def offsets(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Where each array begins in the flat buffer."""
    sizes = np.array([int(np.prod(shape)) for shape in shapes.values()], np.int64)
    return dict(zip(shapes, (np.cumsum(sizes) - sizes).tolist()))


class Params(dict):
    """name -> view, in the order of `shapes`; `flat` is the buffer they share.

    Used for parameters, gradients, both moments and the averaged weights alike.
    """

    def __init__(self, ops, shapes: Mapping[str, tuple[int, ...]], dtype=np.float32):
        super().__init__()
        self._ops = ops
        self.flat = ops.zeros(sum(int(np.prod(shape)) for shape in shapes.values()), dtype)
        for name, start in offsets(shapes).items():
            self[name] = self.flat[start : start + int(np.prod(shapes[name]))].reshape(shapes[name])

    def fill(self, arrays: Mapping[str, np.ndarray]) -> Params:
        """Copies every array in; returns self. Raises KeyError for a missing name, ValueError for another shape."""
        for name, view in self.items():
            if np.shape(arrays[name]) != view.shape:
                raise ValueError(f"{name} has shape {np.shape(arrays[name])}, expected {view.shape}")
            view.reshape(-1)[:] = self._ops.asarray(arrays[name], view.dtype).reshape(-1)
        return self
