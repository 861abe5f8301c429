"""What every kernel may use: noise, threads, BLAS, compiled code on disk, grids and sources of CUDA."""
