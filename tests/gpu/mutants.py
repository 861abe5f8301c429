"""Plants bugs in the kernels, one at a time, and says which session notices: how good is the ladder?

python tests/gpu/mutants.py         all of them, in some minutes; exit code 1 if one lives
python tests/gpu/mutants.py clip    those with the word in their names
python tests/gpu/mutants.py --mode plain barrier
                                    in a session that is not made for them: some live there, which shows what each
                                    is good for
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent.parent
KERNELS = TESTS.parent / "kernels"


class Mutant(NamedTuple):
    """In `file`, `old` becomes `new`; the session of gpu/watched.py in `mode` must notice."""

    name: str
    file: str
    old: str
    new: str
    mode: str


STEP, CHAIN, MLP, SUMS, DEVICE, BERNOULLI, DENSE, GEMM = (
    "bernoulli_step.cu", "bernoulli_chain.cu", "mlp.cuh", "sums.cuh", "device.cuh", "bernoulli.cuh", "dense.cu",
    "gemm.cu"
)  # fmt: skip
MUTANTS = [
    Mutant(
        "no barrier after the noise",
        STEP,
        "own.hi);\n        __syncthreads();\n        forward",
        "own.hi);\n        forward",
        "thread",
    ),
    Mutant(
        "no barrier between layers",
        STEP,
        "H - n, slope);\n      }\n    });\n    __syncthreads();",
        "H - n, slope);\n      }\n    });",
        "thread",
    ),
    Mutant(
        "no barrier after the loss",
        STEP,
        "steps.logged[s], lo, own.hi);\n        __syncthreads();",
        "steps.logged[s], lo, own.hi);",
        "thread",
    ),
    Mutant(
        "no barrier before the next rows",
        STEP,
        "steps.R, lo > own.lo);\n        __syncthreads();",
        "steps.R, lo > own.lo);",
        "thread",
    ),
    Mutant(
        "no meeting after the gradients",
        STEP,
        "    grid_barrier(steps.arrived, ++meeting);\n    for (int piece",
        "    for (int piece",
        "thread",
    ),
    Mutant(
        "no meeting after the sums",
        STEP,
        "    grid_barrier(steps.arrived, ++meeting);\n    const Rates",
        "    const Rates",
        "thread",
    ),
    Mutant(
        "no meeting after AdamW",
        STEP,
        "      }\n    }\n    grid_barrier(steps.arrived, ++meeting);\n  }\n}",
        "      }\n    }\n  }\n}",
        "thread",
    ),
    Mutant(
        "no fence before the meeting",
        DEVICE,
        "    __threadfence();\n    atomicAdd(arrived, 1u);",
        "    atomicAdd(arrived, 1u);",
        "thread",
    ),
    Mutant(
        "no fence after the meeting", DEVICE, "__nanosleep(20);\n    __threadfence();", "__nanosleep(20);", "thread"
    ),
    Mutant(
        "no barrier in the sum over a block", DEVICE, "= v;\n  __syncthreads();\n  C total", "= v;\n  C total", "thread"
    ),
    Mutant(
        "no barrier in the sum over rows",
        SUMS,
        "own[k];\n  __syncthreads();\n  if (y == 0)",
        "own[k];\n  if (y == 0)",
        "thread",
    ),
    Mutant(
        "no barrier between two sums",
        SUMS,
        "own[0] * own[0];\n    }\n    __syncthreads();",
        "own[0] * own[0];\n    }",
        "thread",
    ),
    Mutant(
        "flags set without an atomic",
        CHAIN,
        "atomicOr(&flags[r / 32], 1u << r % 32);",
        "flags[r / 32] |= 1u << r % 32;",
        "thread",
    ),
    Mutant(
        "no barrier after the flags",
        CHAIN,
        "1u << r % 32);\n    }\n    __syncthreads();",
        "1u << r % 32);\n    }",
        "thread",
    ),
    Mutant(
        "panels overwritten too early",
        GEMM,
        "      }\n    }\n    __syncthreads();\n  }\n  c +=",
        "      }\n    }\n  }\n  c +=",
        "thread",
    ),
    Mutant(
        "a row beyond the batch",
        DENSE,
        "if (r >= B) return;\n  const C *row",
        "if (r > B) return;\n  const C *row",
        "address",
    ),
    Mutant("a column beyond the layer", DENSE, "* V;\n  if (j >= H) return;", "* V;\n  if (j > H) return;", "address"),
    Mutant(
        "a bit beyond the row",
        "bernoulli.cu",
        "for (int d = part.lo; d < part.hi; ++d, bits",
        "for (int d = part.lo; d < part.lo + 16; ++d, bits",
        "address",
    ),
    Mutant("parameters beyond the last", STEP, "i < net.P; i += gridDim.x", "i <= net.P; i += gridDim.x", "address"),
    Mutant("an unaligned row", MLP, "return fours(n) % 8 ? fours(n) : fours(n) + 4;", "return n;", "address"),
    Mutant(
        "pads not cleared", MLP, "for (int e = threadIdx.x; e < net.end; e += blockDim.x) room[e] = 0;", "", "plain"
    ),
    Mutant("weights into their pads", MLP, "room[layer.w + e / H * p + e % H]", "room[layer.w + e]", "plain"),
    Mutant(
        "the last bit of a row left out",
        STEP,
        "d < min(net.D, 16 * j + 16)",
        "d < min(net.D - 1, 16 * j + 16)",
        "plain",
    ),
    Mutant("a tie that is left open", "philox.cuh", "while (tied) {", "while (false) {", "plain"),
    Mutant("a margin that is too small", CHAIN, "(1 + MARGIN)", "0.97f", "plain"),
    Mutant(
        "one group's gradient forgotten",
        STEP,
        "group < steps.groups; group +=",
        "group < steps.groups - 1; group +=",
        "plain",
    ),
    Mutant(
        "a clip of the wrong norm", STEP, "clip(norm * now.scale, steps.most)", "clip(norm * 1e4f, steps.most)", "plain"
    ),
    Mutant(
        "a posterior that is not Bayes'",
        BERNOULLI,
        "bb_s * (keep + redraw * pi_v) / bb_t",
        "bb_s * keep / bb_t",
        "plain",
    ),
]


def text(file: str) -> str:
    (path,) = KERNELS.glob(f"*/{file}")
    return path.read_text()


def plant(number: int) -> None:
    """Mutant number `number` in every source that is compiled from now on."""
    from bdiff_np.kernels.shared import cuda_source

    mutant, whole = MUTANTS[number], cuda_source.source
    cuda_source.source = lambda name: whole(name).replace(mutant.old, mutant.new)


def main() -> int:
    from cuda_on_cpu import sanitize

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mode", choices=sorted({mutant.mode for mutant in MUTANTS}), help="the session, in place of each one's own"
    )
    parser.add_argument("words", nargs="*", help="words that the names of those to plant have")
    arguments = parser.parse_args()
    asked, alive = arguments.mode, 0
    chosen = {n: mutant for n, mutant in enumerate(MUTANTS) if all(word in mutant.name for word in arguments.words)}
    if not chosen:
        parser.error(f"no name has {' and '.join(arguments.words)}")

    def session(mode: str, *planted: str):
        return sanitize.run(
            mode,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            str(TESTS / "gpu" / "watched.py"),
            *planted,
            seconds=240,
        )

    for mode in sorted({asked or mutant.mode for mutant in chosen.values()}):
        if not (found := session(mode)).clean:
            print(f"{'none planted':36} {mode:8} NOT clean by itself, so that what it finds says nothing:\n{found}")
            return 1
    for number, mutant in chosen.items():
        found = session(asked or mutant.mode, f"--plant={number}")
        alive += found.clean
        why = (
            f"{len(found.reports)} reports"
            if found.reports
            else "no end in time"
            if found.code is None
            else "a test fails"
        )
        why = "LIVES" if found.clean else why
        print(f"{mutant.name:36} {asked or mutant.mode:8} {why}", flush=True)
    return int(alive > 0)


if __name__ == "__main__":
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    sys.exit(main())
