"""A run's folder: epochs, resume, results, checkpoints, files written whole."""
