"""The optimiser on flat buffers."""
