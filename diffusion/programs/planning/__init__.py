"""The parts of `diffusion plan`."""
