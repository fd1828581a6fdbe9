"""The targets by name. Each is a module with the same functions: check, look, request, prepare, start, poll, stop,
remove and billed, with KEEPS, whether its machines outlive the program, and WORDS, its states for a reader."""

from launch import gke, local, slurm, tpu_vm

BY_NAME = {'tpu-vm': tpu_vm, 'gke': gke, 'slurm': slurm, 'local': local}
