"""The toy family's kernels, on NumPy alone."""
