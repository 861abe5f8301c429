"""The training step and the sampler in PyTorch, as a skilled user writes them: one flat buffer, fused AdamW, nothing
that waits for a number.

Eagerly, what counts on small nets is the number of operations, at about 5 us each. Compiled, the whole step is one
graph, noise and optimiser included, which takes a quarter of the time of compiling the loss alone.
"""

from __future__ import annotations

import math

import contestants
import numpy as np
import torch
from torch.optim.adamw import adamw

# A bit is -1 or +1 here: that is what the network reads, and a flip is a change of sign.


class Torch:
    """mode : "eager"; "compile", the whole step through torch.compile; "whole", the same uncompiled, for tests. With "
    cuda" behind it, on a GPU, where the compiled step is replayed as a CUDA graph"""

    def __init__(self, problem: contestants.Problem, mode: str, threads: int):
        torch.set_num_threads(threads)
        torch.manual_seed(contestants.SEED)
        mode, _, device = mode.partition(" ")
        torch.set_default_device(device or "cpu")
        self.problem, self.mode, self.device, self.taken = problem, mode, device or "cpu", 0
        self.names = sorted(
            problem.weights, key=lambda name: not problem.decayed[name]
        )  # what decays stands first in the flat buffer
        self.shapes = [problem.weights[name].shape for name in self.names]
        self.sizes = [problem.weights[name].size for name in self.names]
        self.cut = sum(problem.weights[name].size for name in self.names if problem.decayed[name])
        self.start = torch.cat([_tensor(problem.weights[name]).reshape(-1) for name in self.names])
        self.flat, self.ema = self.start.clone(), self.start.clone()
        self.m, self.v = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.count = torch.zeros(())  # of steps taken
        self.decay = (torch.arange(len(self.flat)) < self.cut).float()
        self.rows, self.table = _signs(problem.rows), _table(problem.chain)
        self.bases = [
            torch.cat([torch.ones(H), torch.zeros(H)]) for H in problem.size.hidden
        ]  # what scale and shift are without t
        self.features = problem.chain.features.shape[1]
        self.ramp = torch.arange(problem.size.batch) * problem.T
        self.step, self.back = self.eager if mode == "eager" else self.whole, _back
        if mode == "compile":
            fast = {
                "fullgraph": True,
                "options": {"cpp_wrapper": self.device == "cpu"},
            }  # no Python between the kernels
            self.step, self.back = torch.compile(self.whole, **fast), torch.compile(_back, **fast)
            if self.device != "cpu":
                self.step = self.captured(self.step)

    def captured(self, step):
        """The step as a CUDA graph: a few steps beside the main stream, as PyTorch asks for it, then one that is
        recorded."""
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay

    def forward(self, flat, x_t, features):
        w, y = self.named(flat), x_t
        for k, base in enumerate(self.bases):
            scale, shift = torch.addmm(base, features, w[f"dense{k}/F"]).chunk(2, 1)
            y = torch.nn.functional.silu(torch.addmm(w[f"dense{k}/b"], y, w[f"dense{k}/W"]) * scale + shift)
        return torch.addmm(w["out/b"], y, w["out/W"])

    def named(self, flat) -> dict:
        """The parts of a flat buffer by name, as views."""
        return {name: part.view(shape) for name, part, shape in zip(self.names, flat.split(self.sizes), self.shapes)}

    def loss(self, flat, x0, x_t, columns):
        """The scaled loss, less the entropy of q, which no weight changes; and the cross entropy of the reverse step,
        summed, in nats."""
        p, F = self.problem, self.features
        own, agree, disagree, gap, not_agree, not_disagree, not_gap, _ = columns[:, F:, None].unbind(1)
        z = x_t * self.forward(flat, x_t, columns[:, :F]) + own  # logit of x_0 = x_t
        a, b, same = z.sigmoid(), (-z).sigmoid(), x0 == x_t
        q, not_q = torch.where(same, agree, disagree), torch.where(same, not_agree, not_disagree)
        cross = -(q * (agree + b * gap).log() + not_q * (not_disagree + a * not_gap).log()).sum()
        return (cross - p.auxiliary * torch.where(same, a, b).log().sum()) * p.scale, cross

    def loss_and_grads(self, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        start = self.start.clone().requires_grad_()
        loss, cross = self.loss(start, _signs(x0), _signs(x_t), self.table[_tensor(t)])
        (grad,) = torch.autograd.grad(loss, start)
        nats = self.problem.T / len(x0) * (cross.item() - self.problem.entropy(x0, x_t, t))
        return nats, {name: value.numpy(force=True) for name, value in self.named(grad).items()}

    def batch(self):
        """x0 and x_t (B, D), and the tables' columns at t (B, ...)."""
        B, T = self.problem.size.batch, self.problem.T
        x0 = self.rows[torch.randint(len(self.rows), (B,))]
        columns = self.table[1 + torch.div(self.ramp + torch.randint(T, ()), B, rounding_mode="floor")]
        return x0, torch.where(torch.rand(x0.shape) < columns[:, -1:], -x0, x0), columns

    def eager(self) -> None:
        self.taken += 1
        s, k = self.problem.optimizer, self.taken
        rate = s.lr * min(1, k / s.warmup_steps) * 0.5 * (1 + math.cos(math.pi * min(1, k / s.total_steps)))
        leaf = self.flat.detach().requires_grad_()
        (grad,) = torch.autograd.grad(self.loss(leaf, *self.batch())[0], leaf)
        excess = (torch.linalg.vector_norm(grad) / s.clip).clamp_(min=1)  # the fused AdamW divides by it in passing
        self.flat[: self.cut] *= 1 - rate * s.weight_decay  # on its own: one call for all, though they do not all decay
        adamw(
            [self.flat], [grad], [self.m], [self.v], [], [self.count], fused=True, grad_scale=excess, amsgrad=False,
            maximize=False, lr=rate, beta1=s.beta1, beta2=s.beta2, eps=s.eps, weight_decay=0.0,
        )  # fmt: skip
        self.ema.lerp_(self.flat, 1 - min(s.ema, (1 + k) / (10 + k)))

    def whole(self) -> None:
        """The same as one graph: what changes from step to step must be a tensor, for a Python number would be compiled
        in."""
        s, k = self.problem.optimizer, self.count.add_(1)
        rate = s.lr * (k / s.warmup_steps).clamp(max=1) * 0.5 * (1 + (math.pi * (k / s.total_steps).clamp(max=1)).cos())
        grad = torch.func.grad(lambda flat, *batch: self.loss(flat, *batch)[0])(self.flat, *self.batch())
        grad = grad * (s.clip / torch.linalg.vector_norm(grad)).clamp(max=1)
        self.m.lerp_(grad, 1 - s.beta1)
        self.v.lerp_(grad * grad, 1 - s.beta2)
        change = rate / (1 - s.beta1**k) * self.m / (self.v.sqrt() * (1 - s.beta2**k).rsqrt() + s.eps)
        self.flat.copy_(self.flat * (1 - rate * s.weight_decay * self.decay) - change)
        self.ema.lerp_(self.flat, 1 - ((1 + k) / (10 + k)).clamp(max=s.ema))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
        if self.device != "cpu":
            torch.cuda.synchronize()

    def weights(self) -> dict[str, np.ndarray]:
        return {name: value.numpy(force=True) for name, value in self.named(self.ema).items()}

    @torch.inference_mode()
    def sample(self, n: int, steps: int) -> np.ndarray:
        w, chain = self.named(self.flat), self.problem.chains[steps]
        table, F = _table(chain), self.features
        films = []  # of all steps, the bias worked in: y W * scale + shift
        for k, base in enumerate(self.bases):
            scale, shift = torch.addmm(base, table[:, :F], w[f"dense{k}/F"]).chunk(2, 1)
            films.append((scale, w[f"dense{k}/b"] * scale + shift))
        own, agree, _, gap, *_ = table[:, F:].unbind(1)
        x = torch.randint(2, (n, self.problem.size.D)).float() * 2 - 1
        for k in range(steps, 0, -1):
            x = self.back(w, x, [(scale[k], shift[k]) for scale, shift in films], own[k], agree[k], gap[k])
        return (x > 0).byte().numpy(force=True)


def _back(w, x, films, own, agree, gap):
    """x_{t-1} from x_t, (n, D)."""
    y = x
    for k, (scale, shift) in enumerate(films):
        y = torch.nn.functional.silu(torch.addcmul(shift, y @ w[f"dense{k}/W"], scale))
    b = torch.sigmoid(-(x * torch.addmm(w["out/b"], y, w["out/W"]) + own))
    return torch.where(torch.rand(x.shape) < agree + b * gap, -x, x)


def _signs(bits: np.ndarray):
    return _tensor(bits).float() * 2 - 1


def _tensor(array: np.ndarray):
    """On the device that is PyTorch's default now."""
    return torch.from_numpy(array).to(torch.get_default_device())


def _table(chain: contestants.Chain):
    """All columns of a chain in one tensor, (K + 1, F + 8), so that a batch gathers them at once."""
    c = chain
    columns = (
        c.own,
        c.agree,
        c.disagree,
        c.disagree - c.agree,
        c.not_agree,
        c.not_disagree,
        c.not_agree - c.not_disagree,
        c.noise,
    )
    return _tensor(np.column_stack([c.features, *columns]))
