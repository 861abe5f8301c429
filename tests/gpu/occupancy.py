"""How many blocks of 256 threads an H100's multiprocessor holds: by NVIDIA's own header for it, compiled for the
CPU."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

# An H100: registers, threads and shared memory of a multiprocessor, and what a block can have of it.
PROGRAM = r"""
#include <cstdio>
#include <cstring>
#include <cuda_occupancy.h>
int main() {
  cudaOccDeviceProp card{};
  card.computeMajor = 9, card.computeMinor = 0, card.maxThreadsPerBlock = 1024, card.maxThreadsPerMultiprocessor = 2048;
  card.regsPerBlock = card.regsPerMultiprocessor = 65536, card.warpSize = 32, card.numSms = 132;
  card.sharedMemPerBlock = 49152, card.sharedMemPerMultiprocessor = 233472;
  card.sharedMemPerBlockOptin = 232448, card.reservedSharedMemPerBlock = 1024;
  int registers, shared;
  while (scanf("%d %d", &registers, &shared) == 2) {
    cudaOccFuncAttributes kernel{};
    kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers, kernel.numBlockBarriers = 1;
    kernel.maxDynamicSharedSizeBytes = 232448;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF, kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    cudaOccDeviceState state{};
    cudaOccResult result;
    const int fault = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &card, &kernel, &state, 256, shared);
    printf("%d\n", fault ? -fault : result.activeBlocksPerMultiprocessor);
  }
}
"""


def include() -> Path | None:
    """The folder with cuda_occupancy.h."""
    found = find_spec("nvidia")
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in (Path(folder) / "cu13" / "include", *Path(folder).glob("*/include")):
            if (path / "cuda_occupancy.h").is_file():
                return path
    return None


def missing() -> str | None:
    if shutil.which("g++") is None:
        return "g++ is not installed"
    return None if include() else 'cuda_occupancy.h is not installed: pip install "bdiff_np[gpu-check]"'


def blocks(kernels: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Blocks at once on a multiprocessor, by name, for registers of a thread and bytes of shared memory of a block."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "occupancy"
        command = ["g++", "-std=c++17", "-x", "c++", "-", "-I", str(include()), "-o", str(program)]
        subprocess.run(command, input=PROGRAM, text=True, check=True, capture_output=True)
        told = "\n".join(f"{registers} {shared}" for registers, shared in kernels.values())
        answer = subprocess.run([str(program)], input=told, text=True, check=True, capture_output=True).stdout.split()
    return dict(zip(kernels, map(int, answer)))
