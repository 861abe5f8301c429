"""Bernoulli diffusion: q_sample, kl_grad, p_sample, and what fills the fused step and the fused chain."""
