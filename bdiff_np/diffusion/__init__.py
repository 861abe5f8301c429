"""One file a family of diffusions: its whole mathematics in plain float64 NumPy, the judge of every kernel."""
