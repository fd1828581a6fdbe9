"""The cache of compiled programs: whole files only, which other processes may read and write."""

import jax
import pytest
from jax._src import compilation_cache

from diffusion.runtime import compilation


def test_half_a_file_is_replaced_and_none_is_left_beside_it(tmp_path):
    kept = compilation.Whole(str(tmp_path), max_size=-1)
    (tmp_path / 'program-cache').write_bytes(b'ha')  # as a killed process of plain JAX leaves it
    kept.put('program', b'halves make a whole')
    assert kept.get('program') == b'halves make a whole'
    assert [path.name for path in tmp_path.iterdir()] == ['program-cache']


def test_jax_opens_this_cache(tmp_path):
    compilation.cache(str(tmp_path / 'cache'))
    opened, _ = compilation_cache.get_file_cache(str(tmp_path))
    assert isinstance(opened, compilation.Whole)
    assert jax.config.jax_compilation_cache_dir != str(tmp_path / 'cache'), 'the folder that JAX was told stays'


@pytest.mark.parametrize('name', ['a_file/cache', 'a_file'])
def test_a_folder_that_cannot_be_made_is_said_once_and_nothing_fails(tmp_path, monkeypatch, name):
    (tmp_path / 'a_file').touch()
    monkeypatch.setattr(compilation.TALLY, 'unkept', '')
    told = jax.config.jax_compilation_cache_dir
    jax.config.update('jax_compilation_cache_dir', None)
    try:
        compilation.cache(str(tmp_path / name))
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update('jax_compilation_cache_dir', told)
    assert 'a_file' in compilation.TALLY.said() and 'cannot be written' in compilation.TALLY.said()
