"""One file a back end: the few operations that every network is written in, for one kind of array."""
