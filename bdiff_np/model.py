"""A model: process, kernels, network and weights, put together from a configuration or from a checkpoint."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bdiff_np import diffusion, guests
from bdiff_np.backends import load_ops
from bdiff_np.data import Data
from bdiff_np.diffusion import Chain, Family, Task
from bdiff_np.errors import InputError
from bdiff_np.nets import Net, custom
from bdiff_np.nets.on_host import OnHost
from bdiff_np.params import Params
from bdiff_np.runfolder import checkpoint, rundir


def family_of(config) -> Family:
    """The family that a configuration names."""
    return guests.find("diffusion", config.model.family)


def kind_of(family: Family) -> type[Data]:
    """The kind of data that a family takes."""
    return guests.find("data", family.data)


def process_of(path: Path, tensors: dict[str, np.ndarray], meta: dict) -> tuple[Any, Chain]:
    """The configuration and the forward process of what `checkpoint.load` gave for a path. Raises InputError where they
    are none of this version, or do not fit its examples."""
    from bdiff_np import config as configuration

    try:
        config = configuration.validate(meta["config"])
    except (ValueError, TypeError) as fault:
        reason = str(fault).splitlines()[1:2] or [str(fault)]
        raise InputError(f"{path}: its configuration is not one of this version ({reason[0].strip()})") from None
    family = family_of(config)
    try:
        chain = family.restore(config.model, tensors)
        misfit = family.misfit(chain, meta["D"])
    except KeyError as fault:
        raise InputError(f"{path}: lacks {fault}, which a model of the family {family.name} needs") from None
    except (ValueError, TypeError) as fault:
        misfit = str(fault)
    if misfit is not None:
        raise InputError(f"{path}: damaged ({misfit}); use another checkpoint of the same run")
    return config, chain


@dataclass
class Model:
    """What sampling and evaluation need, and training works on.

    config : the whole configuration. D : elements of an example
    ops : the back end. family : the mathematics. chain : the forward process. net : the network. params : its weights
    """

    config: Any
    D: int
    ops: Any
    family: Family
    chain: Chain
    net: Net
    params: Params

    @classmethod
    def build(
        cls, config, D: int, chain: Chain, *, backend: str = "numpy", code: Path | None = None, dtype=np.float32
    ) -> Model:
        """An untrained model.

        chain : the forward process, from `Family.make_chain`. code : a reverse_model.py to use in place of the
            configured network; it is executed
        """
        ops, family = load_ops(backend), family_of(config)
        task = Task(family.name, D, family.outputs(D), chain)
        if code is not None:
            net: Net = custom.CustomNet(code, task, family.state(chain), dtype)
        else:
            net = guests.find("nets", config.model.net).build(task, config.model, dtype)
        net = _beside(net, ops)
        size = sum(int(np.prod(shape)) for shape in net.shapes.values())
        ops.reserve(size * np.dtype(dtype).itemsize, "The network", net.smaller)
        return cls(config, D, ops, family, chain, net, Params(ops, net.shapes, dtype))

    @classmethod
    def load(cls, target: str | Path | None = None, *, backend: str = "numpy") -> Model:
        """The model of a checkpoint, of a results folder, of a run folder (its newest results), or of the newest
        results under runs/.

        Raises InputError where there is none, where it is damaged, or where it needs code from a folder that was not
        named.
        """
        return cls.open(rundir.resolve(target), backend=backend)

    @classmethod
    def open(cls, source: rundir.Source, *, backend: str = "numpy") -> Model:
        """As `load`, of a place that `rundir.resolve` found."""
        tensors, meta = checkpoint.load(source.checkpoint)
        config, chain = process_of(source.checkpoint, tensors, meta)
        code = source.trusted_code(meta["net"] == custom.FILE)
        try:
            model = cls.build(config, meta["D"], chain, backend=backend, code=code)
        except MemoryError as fault:
            raise InputError(f"{source.checkpoint}: its network does not fit into the memory ({fault})") from None
        try:
            model.params.fill({name[4:]: array for name, array in tensors.items() if name.startswith("ema/")})
        except (KeyError, ValueError) as fault:
            raise InputError(
                f"{source.checkpoint}: does not fit the network: {fault}; was {custom.FILE} changed since?"
            ) from None
        return model

    def on(self, backend: str) -> Model:
        """The same model on another back end."""
        if backend == self.ops.name:
            return self
        ops = load_ops(backend)
        net = _beside(self.net, ops)
        params = Params(ops, net.shapes, net.dtype).fill(
            {name: self.ops.to_host(array) for name, array in self.params.items()}
        )
        return replace(self, ops=ops, net=net, params=params)

    @property
    def kind(self) -> type[Data]:
        """The kind of data that the model is of."""
        return kind_of(self.family)

    def kernels(self, chain: Chain | None = None, training=None, **options):
        """The family's kernels (diffusion.Kernels) on this back end, for the model's own chain or one with steps left
        out.

        training : section `training`, when the gradient is to be followed. options : in place of the configured ones
        """
        options = {**self.family.kernel_options(self.config.model, training), **options}
        return diffusion.kernels(self.family.name, self.ops).Kernels(
            chain or self.chain, dtype=self.net.dtype, **options
        )

    @property
    def x_dtype(self) -> np.dtype:
        """Of x_t."""
        return np.dtype(self.family.x_dtype or self.kind.dtype)

    def has_kernels(self, backend: str) -> bool:
        """Whether the family has kernels of its own for a back end."""
        return diffusion.has_kernels(self.family.name, backend)

    def fused(self, what: str):
        """The module kernels/training/fused_<what>_<back end>.py, which does many steps in one compiled call, or None
        where there is none."""
        name = f"bdiff_np.kernels.training.fused_{what}_{self.ops.name.replace('-', '_')}"
        return importlib.import_module(name) if importlib.util.find_spec(name) else None

    @property
    def threads(self):
        """A context in which the back end's threads suit the network."""
        return self.ops.threads(max(self.D, self.net.width))

    def steps(self, K: int | None):
        """The chain with K of its steps; all of them for None. Raises InputError for a K that the model cannot do."""
        if K is None or K == self.chain.T:
            return self.chain
        if not 1 <= K <= self.chain.T:
            raise InputError(f"--steps {K}: the model has {self.chain.T} steps, choose 1 to {self.chain.T}")
        if (reason := self.family.all_steps(self.config.model)) is not None:
            raise InputError(
                f"--steps {K}: a model with {reason} takes all of its {self.chain.T} steps; leave --steps out"
            )
        return self.chain.every(K)

    def output(self, x_t, t):
        """The network's output, (B, outputs), for x_t (B, D) and t (B,) in the model's own time; all of them on the
        back end."""
        return self.net.forward(self.ops, self.params, x_t, t)[0]

    def sample(self, n: int, seed: int = 0, steps: int | None = None, known: np.ndarray | None = None) -> np.ndarray:
        """n new rows, (n, D) of the data's dtype. A row depends on the seed and its number alone, not on n.

        steps : fewer steps of the chain. known : (D,) or (n, D), what is known of a row and stays, as the kind of data
            has it (`Data.check_known`)
        """
        from bdiff_np import sample

        return sample.draw(self, n, seed=seed, steps=steps, known=known)

    def score(self, rows: np.ndarray, seed: int = 0, evaluations: int = 2000) -> np.ndarray:
        """Upper bounds on -log2 p(row), (N,) bits, unbiased estimates from `evaluations` steps of the chain a row, for
        rows (N, D).

        All rows meet the same steps and the same noise, so that their differences are more exact than the values.
        """
        from bdiff_np import evaluate

        return evaluate.score(self, rows, seed=seed, evaluations=evaluations)


def _beside(net: Net, ops) -> Net:
    """A net as a back end runs it. Raises InputError where it cannot."""
    net = net.net if isinstance(net, OnHost) else net
    if net.on_host and ops.on_device:
        net = OnHost(net, load_ops("numpy"))
    ops.check_net(net)
    return net
