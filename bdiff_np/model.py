"""A model: chain, kernels, network and weights, put together from a configuration or from a checkpoint."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bdiff_np import backends
from bdiff_np.errors import InputError
from bdiff_np.nets import custom
from bdiff_np.nets.on_host import OnHost
from bdiff_np.params import Params
from bdiff_np.runfolder import checkpoint, rundir


def backend_names() -> list[str]:
    """The back ends of this version, by file name."""
    return sorted(m.name[:-4].replace("_", "-") for m in pkgutil.iter_modules(backends.__path__) if m.name.endswith("_ops"))


def load_ops(backend: str):
    """The module of shared operations of a back end. Raises InputError for a name that this version has not, Unavailable where it cannot run."""
    if backend not in backend_names():
        raise InputError(f"back end {backend!r} is not part of this version; there is: auto, {', '.join(backend_names())}")
    ops = importlib.import_module(f"bdiff_np.backends.{backend.replace('-', '_')}_ops")
    if ops.on_device:
        importlib.import_module("bdiff_np.backends.device").try_out(ops)
    return ops


@dataclass
class Model:
    """What sampling and evaluation need, and training works on.

    config : the whole configuration. D : bits of a row
    chain : the forward process. net : the network. params : its weights
    """

    config: Any
    D: int
    ops: Any
    chain: Any
    net: Any
    params: Params

    @classmethod
    def build(cls, config, D: int, pi, *, backend: str = "numpy", code: Path | None = None, dtype=np.float32) -> Model:
        """An untrained model.

        pi : stationary law, () or (D,). code : a reverse_model.py to use in place of the configured network; it is executed
        """
        ops = load_ops(backend)
        chain = module("diffusion", config.model.family, "make_chain").make_chain(config.model.schedule, config.model.T, pi)
        if code is not None:
            net: Any = custom.CustomNet(code, D, chain, dtype)
            if ops.on_device:
                net = OnHost(net, load_ops("numpy"))
        else:
            net = module("nets", config.model.net, "build").build(D, chain, config.model, dtype)
        if hasattr(ops, "check"):
            ops.check(net)
        size = sum(int(np.prod(shape)) for shape in net.shapes.values())
        ops.reserve(size * np.dtype(dtype).itemsize, "The network", "take narrower layers (model.hidden)")
        return cls(config, D, ops, chain, net, Params(ops, net.shapes, dtype))

    @classmethod
    def load(cls, target: str | Path | None = None, *, backend: str = "numpy") -> Model:
        """The model of a checkpoint, of a results folder, of a run folder (its newest results), or of the newest results under runs/.

        Raises InputError where there is none, where it is damaged, or where it needs code from a folder that was not named.
        """
        return cls.open(rundir.resolve(target), backend=backend)

    @classmethod
    def open(cls, found: rundir.Found, *, backend: str = "numpy") -> Model:
        """As `load`, of a place that `rundir.resolve` found."""
        from bdiff_np import config as configuration

        tensors, meta = checkpoint.read(found.checkpoint)
        try:
            config = configuration.Config.model_validate(meta["config"])
        except ValueError as fault:
            reason = str(fault).splitlines()[1:2] or [str(fault)]
            raise InputError(f"{found.checkpoint}: its configuration is not one of this version ({reason[0].strip()})") from None
        code = found.trusted_code(meta["net"] == custom.FILE)
        model = cls.build(config, meta["D"], tensors["pi"], backend=backend, code=code)
        try:
            model.params.fill({name[4:]: array for name, array in tensors.items() if name.startswith("ema/")})
        except (KeyError, ValueError) as fault:
            raise InputError(f"{found.checkpoint}: does not fit the network: {fault}; was {custom.FILE} changed since?") from None
        return model

    def on(self, backend: str) -> Model:
        """The same model on another back end."""
        if backend == self.ops.name:
            return self
        ops, net = load_ops(backend), self.net
        if isinstance(net, custom.CustomNet) and ops.on_device:
            net = OnHost(net, load_ops("numpy"))
        elif isinstance(net, OnHost) and not ops.on_device:
            net = net.net
        if hasattr(ops, "check"):
            ops.check(net)
        params = Params(ops, net.shapes, net.dtype).fill({name: self.ops.to_host(array) for name, array in self.params.items()})
        return replace(self, ops=ops, net=net, params=params)

    @property
    def family(self):
        """The module with the family's mathematics."""
        return module("diffusion", self.config.model.family, "make_chain")

    @property
    def family_floor(self):
        """The module with the family's exact floors."""
        return importlib.import_module(f"{self.family.__name__}_floor")

    def kernels(self, chain=None, **options):
        """The family's kernels on this back end, for the model's own chain or one with steps left out."""
        written = importlib.import_module(f"bdiff_np.kernels.{self.config.model.family}.{self.config.model.family}_{self.ops.name.replace('-', '_')}")
        m = self.config.model
        return written.Kernels(chain or self.chain, m.predict, m.skip, dtype=self.net.dtype, **options)

    def fused(self, what: str):
        """The module kernels/<family>_<what>_<back end>.py, which does many steps in one compiled call, or None where there is none."""
        name = f"bdiff_np.kernels.{self.config.model.family}.{self.config.model.family}_{what}_{self.ops.name.replace('-', '_')}"
        return importlib.import_module(name) if importlib.util.find_spec(name) else None

    @property
    def threads(self):
        """A context in which the back end's threads suit the network."""
        return self.ops.threads(max(self.D, getattr(self.net, "width", self.D)))

    def steps(self, K: int | None):
        """The chain with K of its steps; all of them for None. Raises InputError for a K that the model cannot do."""
        if K is None or K == self.chain.T:
            return self.chain
        if not 1 <= K <= self.chain.T:
            raise InputError(f"--steps {K}: the model has {self.chain.T} steps, choose 1 to {self.chain.T}")
        if self.config.model.predict == "x_prev":
            raise InputError(f"--steps {K}: a model with predict: x_prev knows only all of its {self.chain.T} steps; leave --steps out")
        return self.chain.every(K)

    def logits(self, x_t, t):
        """The network's output, (B, D), for x_t (B, D) bits and t (B,) in the chain's own time; all of them on the back end."""
        return self.net.forward(self.ops, self.params, x_t, t)[0]

    def sample(self, n: int, seed: int = 0, steps: int | None = None, known: np.ndarray | None = None) -> np.ndarray:
        """n new rows, (n, D) uint8. A row depends on the seed and its number alone, not on n.

        steps : fewer steps of the chain. known : (D,) or (n, D), 0 or 1 where a bit is known and stays, -1 where it is to be drawn
        """
        from bdiff_np import sample

        return sample.draw(self, n, seed=seed, steps=steps, known=known)

    def score(self, rows: np.ndarray, seed: int = 0, evaluations: int = 2000) -> np.ndarray:
        """Upper bounds on -log2 p(row), (N,) bits, unbiased estimates from `evaluations` steps of the chain a row, for bits (N, D).

        All rows meet the same steps and the same noise, so that their differences are more exact than the values.
        """
        from bdiff_np import evaluate

        return evaluate.score(self, rows, seed=seed, evaluations=evaluations)


def module(package: str, name: str, maker: str):
    """The module of a family or a network by its file name. Raises InputError, with those there are, for a name without one."""
    folder = importlib.import_module(f"bdiff_np.{package}")
    names = [m.name for m in pkgutil.iter_modules(folder.__path__)]
    modules = {found: importlib.import_module(f"bdiff_np.{package}.{found}") for found in names}
    there = sorted(found for found in names if hasattr(modules[found], maker))
    if name not in there:
        raise InputError(f"there is no {name!r} in bdiff_np/{package}; there is: {', '.join(there)}")
    return modules[name]
