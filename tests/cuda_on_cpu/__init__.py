"""CUDA on the CPU: .cu files as they stand, compiled by g++ and run and checked without a GPU. See README.md."""
