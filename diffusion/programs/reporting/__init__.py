"""What `diffusion report` is made of: what lies in a workdir, the sections of the page, and its plots."""
