"""Many training steps, or many steps of the sampler, in one compiled call, for any family: a family fills in what is
its own."""
