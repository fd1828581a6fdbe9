"""Diffusion, score-based and flow-matching image models in JAX and Flax."""
