"""A net that is written in NumPy, beside a GPU: it runs on the host, and its arrays are copied to and fro."""

from __future__ import annotations

from bdiff_np.nets import Net
from bdiff_np.params import Params


class OnHost(Net):
    """Wraps a net with `on_host` for a back end on a device.

    host : the back end on which the net itself runs, numpy_ops
    """

    on_host = True

    def __init__(self, net: Net, host):
        self.net, self.host = net, host
        self.shapes, self.dtype, self.D, self.width = net.shapes, net.dtype, net.D, net.width
        self.path, self.smaller = net.path, net.smaller

    def twin(self) -> OnHost:
        """As that of the net."""
        return OnHost(self.net.twin(), self.host)

    def init(self, seed: int):
        return self.net.init(seed)

    def forward(self, ops, params, x_t, t, key=None):
        here = {name: ops.to_host(array) for name, array in params.items()}
        out, tape = self.net.forward(self.host, here, ops.to_host(x_t), ops.to_host(t), key)
        return ops.asarray(out), (here, tape)

    def backward(self, ops, params, tape, dout) -> Params:
        here, tape = tape
        grads = self.net.backward(self.host, here, tape, ops.to_host(dout))
        return self.gradients(ops).fill(grads)

    def decays(self) -> dict[str, bool]:
        return self.net.decays()
