"""The wiring: the only code that reads a config, and the only place where the rooms meet."""

from diffusion.wiring.drawing import denoise, sampling, sigmas
from diffusion.wiring.experiments import Experiment, experiment, nearest_size
from diffusion.wiring.known import Facts, facts, facts_from_json, moved, shape, source
from diffusion.wiring.levels import paces_itself
from diffusion.wiring.schema import EDITING, SAMPLING, SCHEMA, override, resolve
from diffusion.wiring.steering import UNSTEERED, Steering
from diffusion.wiring.tasks import Task, leads

__all__ = [
    'EDITING',
    'SAMPLING',
    'SCHEMA',
    'UNSTEERED',
    'Experiment',
    'Facts',
    'Steering',
    'Task',
    'denoise',
    'experiment',
    'facts',
    'facts_from_json',
    'leads',
    'moved',
    'nearest_size',
    'override',
    'paces_itself',
    'resolve',
    'sampling',
    'shape',
    'sigmas',
    'source',
]
