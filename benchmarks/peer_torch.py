"""The training step and the sampler in PyTorch, as a skilled user writes them: one flat buffer, fused AdamW, nothing
that waits for a number.

Eagerly, what counts on small nets is the number of operations, at about 5 us each. Compiled, the whole step is one
graph, noise and optimiser included, which takes a quarter of the time of compiling the loss alone.
"""

from __future__ import annotations

import math

import contestants
import families
import numpy as np
import torch
from torch.optim.adamw import adamw

# Notation: `columns` are those of a family's table, (B, n) at each row's t. A family's `target` is what its loss
# compares the network's output with.


class Bits:
    """A bit is -1 or +1 here: that is what the network reads, and a flip is a change of sign."""

    options: dict[str, bool] = {}  # of torch.compile

    def __init__(self, family: families.Bits):
        self.auxiliary = family.auxiliary

    def data(self, rows: np.ndarray):
        """(N, D) as x is."""
        return _tensor(rows).float() * 2 - 1

    def rows(self, x) -> np.ndarray:
        """The reverse of `data`."""
        return (x > 0).byte().numpy(force=True)

    def given(self, chain: families.BitSteps, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray):
        """x_t and target of `noisy`, for noise that is known."""
        return self.data(x_t), self.data(x0)

    def columns(self, chain: families.BitSteps) -> tuple[np.ndarray, ...]:
        """Of the table, beside the features of time."""
        c = chain
        gaps = c.disagree - c.agree, c.not_agree - c.not_disagree
        return c.own, c.agree, c.disagree, c.not_agree, c.not_disagree, *gaps, c.noise

    def steps(self, table):
        """Those that `back` takes, (K + 1,) each."""
        own, agree, _, _, _, gap, *_ = table.unbind(1)
        return own, agree, gap

    def noisy(self, x0, columns):
        """x_t, and x0 as the target."""
        return torch.where(torch.rand(x0.shape) < columns[:, -1:], -x0, x0), x0

    def loss(self, out, x_t, x0, columns):
        """What is differentiated, and the cross entropy of the reverse step; summed, in nats."""
        own, agree, disagree, not_agree, not_disagree, gap, not_gap, _ = columns[:, :, None].unbind(1)
        z = x_t * out + own  # logit of x_0 = x_t
        a, b, same = z.sigmoid(), (-z).sigmoid(), x0 == x_t
        q, not_q = torch.where(same, agree, disagree), torch.where(same, not_agree, not_disagree)
        cross = -(q * (agree + b * gap).log() + not_q * (not_disagree + a * not_gap).log()).sum()
        return cross - self.auxiliary * torch.where(same, a, b).log().sum(), cross

    def prior(self, n: int, D: int):
        """x_T."""
        return torch.randint(2, (n, D)).float() * 2 - 1

    def back(self, out, x, own, agree, gap):
        """x_{t-1} from x_t."""
        b = torch.sigmoid(-(x * out + own))
        return torch.where(torch.rand(x.shape) < agree + b * gap, -x, x)


class Points:
    """Methods: Bits. The target is v."""

    options = {
        "fallback_random": True
    }  # PyTorch's own normal numbers take a third to an eighth of what compiled ones do

    def __init__(self, family: families.Points):
        self.family = family

    def data(self, rows: np.ndarray):
        return _tensor(self.family.standard(rows).astype(np.float32))

    def rows(self, x) -> np.ndarray:
        return x.numpy(force=True) * self.family.scale + self.family.mean

    def given(self, chain: families.PointSteps, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray):
        return _tensor(x_t), _tensor(self.family.target(chain, x0, x_t, t).astype(np.float32))

    def columns(self, chain: families.PointSteps) -> tuple[np.ndarray, ...]:
        c = chain
        return c.s, c.n, c.a, c.c, c.k, c.rho, c.beta, 1 - c.beta, c.sigma

    def steps(self, table):
        _, _, a, c, _, _, beta, keep, sigma = table.unbind(1)
        return a, c, beta, keep, sigma

    def noisy(self, x0, columns):
        noise = torch.randn(x0.shape)
        s, n = columns[:, :1], columns[:, 1:2]
        return torch.addcmul(s * x0, n, noise), torch.addcmul(s * noise, n, x0, value=-1)

    def loss(self, out, x_t, v, columns):
        _, _, _, _, k, rho, beta, keep, _ = columns[:, :, None].unbind(1)
        mean, z = out.chunk(2, 1)
        w = torch.addcmul(beta, keep, (z * -self.family.root).exp())  # beta / variance
        nats = (torch.addcmul(rho, k, (mean - v).square()) * w - w.log()).sum() / 2
        return nats, nats

    def prior(self, n: int, D: int):
        return torch.randn(n, D)

    def back(self, out, x, a, c, beta, keep, sigma):
        mean, z = out.chunk(2, 1)
        w = torch.addcmul(beta, keep, (z * -self.family.root).exp())
        return a * x + c * mean + sigma * w.rsqrt() * torch.randn(x.shape)


FAMILIES = {"bernoulli": Bits, "gaussian": Points}


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
        self.family = FAMILIES[problem.family.name](problem.family)
        self.rows, self.table = self.family.data(problem.rows), self.tabled(problem.chain)
        self.bases = [
            torch.cat([torch.ones(H), torch.zeros(H)]) for H in problem.size.hidden
        ]  # what scale and shift are without t
        self.features = problem.chain.features.shape[1]
        self.ramp = torch.arange(problem.size.batch) * problem.T
        self.step, self.back = self.eager if mode == "eager" else self.whole, self.step_back
        if mode == "compile":
            options = {"cpp_wrapper": self.device == "cpu", **self.family.options}  # no Python between the kernels
            fast = {"fullgraph": True, "options": options}
            self.step, self.back = torch.compile(self.whole, **fast), torch.compile(self.step_back, **fast)
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

    def tabled(self, chain):
        """All columns of a chain in one tensor, (K + 1, F + n), so that a batch gathers them at once."""
        return _tensor(np.column_stack([chain.features, *self.family.columns(chain)]))

    def loss(self, flat, x_t, target, columns):
        """The scaled loss less what no weight changes, and what stands in it of the bound, summed, in nats."""
        F = self.features
        nats, bound = self.family.loss(self.forward(flat, x_t, columns[:, :F]), x_t, target, columns[:, F:])
        return nats * self.problem.scale, bound

    def loss_and_grads(self, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        start = self.start.clone().requires_grad_()
        loss, bound = self.loss(start, *self.family.given(self.problem.chain, x0, x_t, t), self.table[_tensor(t)])
        (grad,) = torch.autograd.grad(loss, start)
        named = {name: value.numpy(force=True) for name, value in self.named(grad).items()}
        return self.problem.nats(bound.item(), x0, x_t, t), named

    def batch(self):
        """x_t and the loss's target (B, D), and the tables' columns at t (B, ...)."""
        B, T = self.problem.size.batch, self.problem.T
        x0 = self.rows[torch.randint(len(self.rows), (B,))]
        columns = self.table[1 + torch.div(self.ramp + torch.randint(T, ()), B, rounding_mode="floor")]
        return *self.family.noisy(x0, columns[:, self.features :]), columns

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
        w, table, F = self.named(self.flat), self.tabled(self.problem.chains[steps]), self.features
        films = []  # of all steps, the bias worked in: y W * scale + shift
        for k, base in enumerate(self.bases):
            scale, shift = torch.addmm(base, table[:, :F], w[f"dense{k}/F"]).chunk(2, 1)
            films.append((scale, w[f"dense{k}/b"] * scale + shift))
        columns, x = self.family.steps(table[:, F:]), self.family.prior(n, self.problem.size.D)
        for k in range(steps, 0, -1):
            x = self.back(w, x, [(scale[k], shift[k]) for scale, shift in films], *(column[k] for column in columns))
        return self.family.rows(x)

    def step_back(self, w, x, films, *columns):
        """x_{t-1} from x_t, (n, D)."""
        y = x
        for k, (scale, shift) in enumerate(films):
            y = torch.nn.functional.silu(torch.addcmul(shift, y @ w[f"dense{k}/W"], scale))
        return self.family.back(torch.addmm(w["out/b"], y, w["out/W"]), x, *columns)


def _tensor(array: np.ndarray):
    """On the device that is PyTorch's default now."""
    return torch.from_numpy(array).to(torch.get_default_device())
