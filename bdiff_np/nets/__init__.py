"""Networks, and the contract through which the rest of the program knows them. Forward and backward are written by
hand.

A net <name> is nets/<name>.py with NET, a class derived from `Net`, and is found by `model.net: <name>`; a run folder
may bring its own (custom.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bdiff_np.params import Params
from bdiff_np.rng import Key
from bdiff_np.settings import Settings


class Stage(NamedTuple):
    """A dense layer of a perceptron and what stands around it, as fused paths see it:

        y = drop(act(film(norm(x) W + b)))    x being what the stage before gave
        y = s + (x W + b)                     of one that `adds`: it ends the residual block that the stage before it,
                                              which has a norm, began with the input s

    norm : name of the LayerNorm before it. rate, number : of the dropout behind it, 0 for none, and the number of its
        noise. adds : whether it ends a residual block
    """

    dense: Any  # layers.Dense
    norm: str | None = None
    rate: float = 0.0
    number: int = 0
    adds: bool = False


class Net:
    """What the program asks of a network. Methods without a body must be written; the others have the default that
    stands here.

    shapes : parameter name -> shape, in the order of the flat buffer
    dtype : of parameters and outputs. D : elements of an example. width : units of the widest hidden layer
    """

    Settings: type[Settings] = Settings  # its settings in the section `model`
    shapes: Mapping[str, tuple[int, ...]]
    dtype: np.dtype
    D: int
    width: int = 0

    # its stages, where they are all there is to it: then fused paths can take it
    stages: list[Stage] | None = None
    features: np.ndarray  # with `stages`: (T + 1, F), what time tells the hidden layers; and
    odds: np.ndarray | None = None  # (T + 1,), what x_t is weighted by where it is read a second time
    on_host: bool = False  # written in NumPy alone: beside a GPU its arrays travel (on_host.py)
    path: Path | None = None  # the user's file that it was read from
    _gradients: Params | None = None
    smaller: str = "take a smaller network"  # what to do where it does not fit into memory

    @property
    def dense(self) -> list | None:
        """Its layers (layers.Dense), where they alone are all there is to it: what fused paths on a GPU can take."""
        bare = self.stages is not None and not any(stage.norm or stage.rate or stage.adds for stage in self.stages)
        return [stage.dense for stage in self.stages or ()] if bare else None

    @classmethod
    def build(cls, task, settings, dtype=np.float32) -> Net:
        """The network for a task (diffusion.Task) that the section `model` describes."""
        raise NotImplementedError

    def init(self, seed: int) -> dict[str, np.ndarray]:
        """First values of all parameters, from the seed alone."""
        raise NotImplementedError

    def forward(self, ops, params: Params, x_t, t, key: Key | None = None) -> tuple[Any, Any]:
        """Output (B, outputs) and the tape, for x_t (B, D) and t (B,). `key` is that of the noise of dropout: given in
        training alone."""
        raise NotImplementedError

    def backward(self, ops, params: Params, tape, dout) -> Params:
        """Gradients of all parameters from the output's, (B, outputs). The buffer is the network's own, good until the
        next call."""
        raise NotImplementedError

    def backward_input(self, ops, params: Params, tape, dout):
        """As `backward`, and the gradient of what the first layer multiplied: (gradients, dx). For families whose data
        is embedded."""
        raise NotImplementedError

    def gradients(self, ops) -> Params:
        """The buffer of gradients, the network's own."""
        if self._gradients is None:
            self._gradients = Params(ops, self.shapes, self.dtype)
        return self._gradients

    def twin(self) -> Any:
        """The same network, to be tried out; another object where it might keep something between calls."""
        return self

    def decays(self) -> dict[str, bool]:
        """Which parameters decay: by default matrices, not biases and gains, which have no scale to lose."""
        return {name: len(shape) > 1 for name, shape in self.shapes.items()}

    def units(self) -> int:
        """Numbers that the layers give for one example, about: what its time and its memory follow."""
        return sum(shape[-1] for shape in self.shapes.values() if len(shape) > 1)
