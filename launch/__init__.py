"""Runs a command of `diffusion` on rented machines, a cluster or here. Standard library only: it starts on a laptop."""
