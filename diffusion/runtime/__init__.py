"""What a pod needs and diffusion does not explain: mesh, state, checkpoints, metrics."""
