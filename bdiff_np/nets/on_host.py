"""A user's network beside a GPU: it is written in NumPy, so it runs on the host, and its arrays travel."""

from __future__ import annotations

from bdiff_np.params import Params


class OnHost:
    """Wraps a network (nets/custom.py) for a back end on a device.

    host : the back end on which the network itself runs, numpy_ops
    """

    def __init__(self, net, host):
        self.net, self.host = net, host
        self.shapes, self.dtype, self.D, self.path = net.shapes, net.dtype, net.D, net.path

    def init(self, seed: int):
        return self.net.init(seed)

    def forward(self, ops, params, x_t, t, key=None):
        here = {name: ops.to_host(array) for name, array in params.items()}
        logits, tape = self.net.forward(self.host, here, ops.to_host(x_t), ops.to_host(t), key)
        return ops.asarray(logits), (here, tape)

    def backward(self, ops, params, tape, dlogits) -> Params:
        here, tape = tape
        grads = self.net.backward(self.host, here, tape, ops.to_host(dlogits))
        if not hasattr(self, "_grads"):
            self._grads = Params(ops, self.shapes, self.dtype)
        return self._grads.fill(grads)
