"""One file a network, each with forward and backward written by hand. `mlp` is the default; a run folder may bring its own."""
