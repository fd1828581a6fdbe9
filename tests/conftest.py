"""Eight simulated devices and one compilation cache for the whole suite; every key may be used once only."""

import os
import pathlib

import jax
import pytest

from diffusion.data import sources
from diffusion.runtime import threefry

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_debug_key_reuse', True)
CACHE = os.environ.get('DIFFUSION_TEST_CACHE', str(pathlib.Path.home() / '.cache' / 'diffusion-tests'))
jax.config.update('jax_compilation_cache_dir', CACHE)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
threefry.quicken()
# Started here, before a program under test decides how many devices there are.
assert len(jax.devices()) == 8


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
    """One folder of prepared sets for all tests."""
    return str(tmp_path_factory.mktemp('tfds'))


@pytest.fixture(scope='session')
def faces(data_dir):
    """The bundled faces, 16 x 16, prepared."""
    source = sources.emoji(data_dir=data_dir)
    assert len(source)
    return source
