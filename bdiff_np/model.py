"""A model: process, kernels, network and weights, put together from a configuration or from a checkpoint."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bdiff_np import __version__, diffusion, guests
from bdiff_np.backends import load_ops
from bdiff_np.data import Data, refuse_missing
from bdiff_np.diffusion import Chain, Family, Task
from bdiff_np.errors import InputError, seed_of, whole
from bdiff_np.nets import Net, custom
from bdiff_np.nets.netcheck import rehearse
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
        misfit = family.misfit(chain, meta["D"]) or kind_of(family).check_form(meta.get("form", {}), meta["D"])
    except KeyError as fault:
        raise InputError(f"{path}: lacks {fault}, which a model of the family {family.name} needs") from None
    except (ValueError, TypeError) as fault:
        misfit = str(fault)
    if misfit is not None:
        raise InputError(f"{path}: damaged ({misfit}); use another checkpoint of the same run")
    return config, chain


@dataclass(repr=False)
class Model:
    """What sampling and evaluation need, and training works on.

    config : the whole configuration. D : elements of an example. form : of the training rows (Data.form)
    ops : the back end. family : the mathematics. chain : the forward process. net : the network. params : its weights
    """

    config: Any
    D: int
    ops: Any
    family: Family
    chain: Chain
    net: Net
    params: Params
    form: Mapping[str, Any] = field(default_factory=dict)
    auto: bool = False  # whether each call of `sample` and `score` takes the back end that suits it

    @classmethod
    def build(
        cls, config, D: int, chain: Chain, *, backend: str = "numpy", code: Path | None = None, dtype=np.float32
    ) -> Model:
        """An untrained model.

        chain : the forward process, from `Family.make_chain`. code : a reverse_model.py to use in place of the
            configured network; it is executed
        """
        ops, family = load_ops(backend), family_of(config)
        task = Task(family.name, D, family.inputs(D, config.model), family.outputs(D, config.model), chain)
        if code is not None:
            net: Net = custom.CustomNet(code, task, family.state(chain), dtype)
        else:
            net = guests.find("nets", config.model.net).build(task, config.model, dtype)
        net = _beside(net, ops)
        size = sum(math.prod(shape) for shape in net.shapes.values())
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
        model.form = meta.get("form", {})
        if code is not None:
            rehearse(model)
        return model

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint that `bdiff_np.load` reads: weights and settings, without what a training needs to go on.

        Raises InputError for a name without the ending .safetensors, a folder that is not there, and for a model with a
        network of the user's own: that is code, which its results folder holds.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"{path}: a model is saved as .safetensors; add the ending")
        if self.net.path is not None:
            raise InputError(f"{path}: the model's network is code, {self.net.path}; keep its results folder instead")
        checkpoint.write(path, *self._packed())

    def _packed(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Tensors and description, as a checkpoint has them."""
        tensors = {f"ema/{name}": self.ops.to_host(array) for name, array in self.params.items()}
        meta = {
            "D": self.D, "net": custom.FILE if self.net.path else self.config.model.net, "form": dict(self.form),
            "config": self.config.model_dump(mode="json"), "version": __version__,
        }  # fmt: skip
        return tensors | self.family.state(self.chain), meta

    def __reduce__(self):
        """Pickled, and copied, as a checkpoint would be; and on the same back end again."""
        return _unpacked, (*self._packed(), self.net.path, self.ops.name, self.net.dtype.str, self.auto)

    def _suited(self, choose: Callable[[Model], Any]) -> Model:
        """This model, or with `auto` the same on the back end that `choose` takes for the work at hand."""
        if not self.auto:
            return self
        choice = choose(self)
        if choice.backend == self.ops.name:
            return self
        if choice.backend not in self._moved:
            print(f"back end {choice.backend} (auto: {choice.reason})", file=sys.stderr)
            self._moved[choice.backend] = self.on(choice.backend)
        return self._moved[choice.backend]

    @cached_property
    def _moved(self) -> dict[str, Model]:
        """The same model on other back ends, as far as they have been asked for."""
        return {}

    def on(self, backend: str) -> Model:
        """The same model on another back end."""
        if backend == self.ops.name:
            return self
        ops = load_ops(backend)
        net = _beside(self.net, ops)
        params = Params(ops, net.shapes, net.dtype).fill(
            {name: self.ops.to_host(array) for name, array in self.params.items()}
        )
        return replace(self, ops=ops, net=net, params=params, auto=False)

    def __repr__(self) -> str:
        size = sum(int(np.prod(shape)) for shape in self.net.shapes.values())
        return (
            f"Model({self.D} {self.kind.elements}, family {self.family.name}, T = {self.chain.T}, {size} parameters, "
            f"back end {'auto' if self.auto else self.ops.name})"
        )

    @property
    def kind(self) -> type[Data]:
        """The kind of data that the model is of."""
        return kind_of(self.family)

    def data(self, rows: np.ndarray) -> Data:
        """Samples (n, D) as data in the form of the training rows."""
        data = self.kind.from_array(rows)
        data.form = self.form
        return data

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
        back end. What overflows becomes infinite, in silence: the bound says it."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.net.forward(self.ops, self.params, x_t, t)[0]

    def sample(
        self,
        n: int,
        seed: int | None = None,
        steps: int | None = None,
        known: np.ndarray | None = None,
        method: str = "clamp",
        limit: int | None = None,
    ) -> np.ndarray:
        """n new rows, (n, D) of the data's dtype. A row depends on the seed and its number alone, not on n.

        seed : 0 .. 2**63 - 2; for None one is drawn, and said on stderr. steps : fewer steps of the chain
        known : (D,) or (n, D), what is known of a row and stays, as the kind of data has it (`Data.check_known`)
        method : "rejection", rows of the model's law given what is known, found among at most `limit` draws (2**20 by
            default); "clamp", quick whatever is known, but a heuristic, as a UserWarning says
        """
        from bdiff_np import sample
        from bdiff_np.backends import auto

        n, seed = whole("n", n), seed_of(seed)
        if steps is not None:
            steps = whole("steps", steps)
        more = {} if limit is None else {"limit": whole("limit", limit, 1)}
        # how many draws rejection takes is not known yet; ten for a row is a guess
        draws = n * (10 if known is not None and method == "rejection" else 1)
        model = self._suited(lambda model: auto.for_sampling(model, draws, model.steps(steps).T))
        return sample.draw(model, n, seed=seed, steps=steps, known=known, method=method, **more)

    def score(self, rows: Any, seed: int | None = 0, evaluations: int = 2000) -> np.ndarray:
        """Upper bounds on -log2 p(row), (N,) bits, unbiased estimates from `evaluations` steps of the chain a row, for
        rows (N, D), or a list, data frame, tensor or sparse matrix of them.

        All rows meet the same steps and the same noise, so that their differences are more exact than the values.
        """
        from bdiff_np import evaluate
        from bdiff_np.backends import auto

        data = self.kind.from_array(rows).in_form(self.form, "rows")
        refuse_missing(self.family, data)
        if data.understood:
            print(f"rows: {data.understood}", file=sys.stderr)
        evaluations = whole("evaluations", evaluations, 1)
        model = self._suited(lambda model: auto.for_evaluation(model, evaluations * len(data)))
        return evaluate.score(model, data, seed=seed_of(seed), evaluations=evaluations)


def _unpacked(tensors, meta, code, backend: str, dtype: str, auto: bool) -> Model:
    """The model of `Model._packed`."""
    from bdiff_np import config as configuration

    config = configuration.validate(meta["config"])
    chain = family_of(config).restore(config.model, tensors)
    model = Model.build(config, meta["D"], chain, backend=backend, code=code, dtype=np.dtype(dtype))
    model.params.fill({name[4:]: array for name, array in tensors.items() if name.startswith("ema/")})
    model.form, model.auto = meta["form"], auto
    return model


def _beside(net: Net, ops) -> Net:
    """A net as a back end runs it. Raises InputError where it cannot."""
    net = net.net if isinstance(net, OnHost) else net
    if net.on_host and ops.on_device:
        net = OnHost(net, load_ops("numpy"))
    ops.check_net(net)
    return net
