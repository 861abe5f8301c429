"""The gradients of a run's network, checked and put into words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bdiff_np import config
from bdiff_np.errors import InputError
from bdiff_np.model import Model, family_of
from bdiff_np.nets import netcheck
from bdiff_np.runfolder import held_out
from bdiff_np.runfolder.files import check_readable
from bdiff_np.runfolder.opening import config_file, own_code


def check_net(run: Path, seed: int) -> tuple[str, bool]:
    """A table of all parameters, and whether all their gradients are right."""
    check_readable(run)
    if not run.is_dir():
        raise InputError(f"{run}: there is no such run folder")
    settings = config.load(config_file(run))
    family, code = family_of(settings), own_code(run)
    rows = held_out.read(family, run, settings).train
    chain = family.make_chain(settings.model, rows)
    model = Model.build(settings, rows.D, chain, code=code, dtype=np.float64)
    if model.net.path is not None:
        model.params.fill(model.net.init(seed))
        netcheck.rehearse(model, model.kernels())
    results = netcheck.check(model, seed=seed)
    width = max(len(c.name) for c in results)
    lines = [f"{'parameter':{width}}  {'analytic':>13}  {'numeric':>13}  {'difference':>10}"]
    lines += [
        f"{c.name:{width}}  {c.analytic:13.6e}  {c.numeric:13.6e}  {c.error:10.1e}  {'ok' if c.good else 'WRONG'}"
        for c in results
    ]
    wrong = [c.name for c in results if not c.good]
    where = str(code) if code else f"the network {settings.model.net}"
    lines.append(
        f"{where}: "
        + (f"the gradient is wrong for {', '.join(wrong)}" if wrong else f"all {len(results)} gradients are right")
    )
    return "\n".join(lines), not wrong
