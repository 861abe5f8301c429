"""Packaging. The one thing out of the ordinary: the top-level folder kernels/ is installed as bdiff_np.kernels.

On its own it would claim the import name `kernels`, which another package on PyPI uses; mapped into bdiff_np it cannot
collide, and the kernels still stand at the top of the tree, where a reader looks for them.
"""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
PACKAGES = ["bdiff_np", *(f"bdiff_np.{path.parent.name}" for path in sorted(ROOT.glob("bdiff_np/*/__init__.py")))]
PACKAGES += ["bdiff_np.kernels"]
PACKAGES += [f"bdiff_np.kernels.{path.parent.name}" for path in sorted(ROOT.glob("kernels/*/__init__.py"))]

if __name__ == "__main__":
    setup(
        name="bdiff_np",
        version="0.1.0",
        description="Diffusion models from scratch: networks, gradients and kernels by hand, on NumPy, Numba and CUDA",
        long_description=open("README.md", encoding="utf-8").read(),
        long_description_content_type="text/markdown",
        license="MIT",
        python_requires=">=3.10",
        packages=PACKAGES,
        package_dir={"bdiff_np": "bdiff_np", "bdiff_np.kernels": "kernels"},
        package_data={"bdiff_np": ["py.typed"], "": ["*.cu", "*.cuh"]},
        install_requires=[
            "numpy>=1.24",
            "numba>=0.60",
            "llvmlite",
            "click>=8.1",
            "pyyaml>=6",
            "pydantic>=2.7",
            "safetensors>=0.4",
            "threadpoolctl>=3",
            "tqdm>=4.60",
            "matplotlib>=3.7",
            "pillow>=9.2",
        ],
        extras_require={
            "test": [
                "pytest>=7",
                "pytest-xdist>=3",
                "hypothesis>=6",
                "setuptools>=64",
                "wheel",
                "ruff>=0.6",
                "mypy>=1.8",
                "types-PyYAML",
                "types-tqdm",
                "scipy",
                "pyarrow",
                "pandas",
                "bed-reader",
            ],
            # formats of data files
            "mat": ["scipy>=1.8"],  # and sparse matrices
            "parquet": ["pyarrow>=10"],
            "plink": ["bed-reader>=1"],
            # For a GPU whose driver knows CUDA 12 or 13. A driver of 13.0 refuses some of what a 13.5 toolkit makes;
            # the other way round all works.
            "cuda12": ["cupy-cuda12x[ctk]>=14.2", "numba-cuda[cu12]>=0.30"],
            "cuda13": ["cupy-cuda13x[ctk]>=14.2", "numba-cuda[cu13]>=0.30", "cuda-toolkit==13.0.*"],
            # To compile and disassemble the kernels without a GPU, with the compiler and the options that CuPy and
            # Numba-CUDA use.
            "gpu-check": [
                "cupy-cuda13x>=14.2",
                "numba-cuda>=0.30",
                "nvidia-cuda-nvrtc==13.0.*",
                "nvidia-cuda-runtime==13.0.*",
                "nvidia-nvvm==13.0.*",
                "nvidia-nvjitlink==13.0.*",
                "nvidia-cuda-nvdisasm>=13",
            ],
        },
        entry_points={"console_scripts": ["bdiff=bdiff_np.cli:main"]},
    )
