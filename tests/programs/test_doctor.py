import ctypes
import importlib.metadata
import importlib.util
import types

import pytest

from diffusion import cli
from diffusion.runtime import platform


def test_doctor_says_what_there_is(capsys):
    assert cli.main(['doctor']) == 0
    out = capsys.readouterr().out
    assert 'jax ' in out and 'x cpu' in out and 'verdict   ready' in out


@pytest.mark.parametrize('kind', ['gpu', 'tpu'])
def test_an_accelerator_that_jax_cannot_see_is_an_error(monkeypatch, capsys, tmp_path, kind):
    device = tmp_path / 'accelerator0'
    device.touch()
    fix = platform.HIDDEN[kind][1]
    monkeypatch.setattr(platform, 'HIDDEN', {kind: (str(tmp_path / 'accelerator*'), fix)})
    assert cli.main(['doctor']) == 2
    assert fix in capsys.readouterr().err
    words = ['train', '--config=configs/toy2d.py', f'--workdir={tmp_path / "run"}']
    assert cli.main(words) == 2
    assert '--config.runtime.platform=cpu' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_programs_and_their_help(capsys):
    assert cli.main([]) == 2 and cli.main(['--help']) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.PROGRAMS)
    assert cli.main(['trian']) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    for name in cli.PROGRAMS:
        try:
            status = cli.main([name, '--help'])
        except SystemExit as ended:
            status = ended.code
        assert status == 0 and f'diffusion {name}' in capsys.readouterr().out


@pytest.mark.parametrize(
    'batch,cores,devices', [(64, 2, 2), (64, 1, 1), (9, 2, 1), (64, 32, 8), (10, 4, 2), (12, 6, 6)]
)
def test_host_devices_divide_the_batch(batch, cores, devices):
    assert platform.host_devices(batch, cores) == devices


CUDA_SUCCESS, CUDA_ERROR_NO_DEVICE = 0, 100


@pytest.mark.parametrize(
    'compilers,tpu,driver,platforms',
    [
        ('', False, None, None),
        ('libtpu', False, None, 'cpu'),
        ('xla_cuda13', False, None, 'cpu'),
        ('libtpu xla_cuda13', False, None, 'cpu'),
        ('libtpu xla_cuda13', False, CUDA_ERROR_NO_DEVICE, 'cpu'),
        ('libtpu xla_cuda13', False, CUDA_SUCCESS, 'cuda,cpu'),
        ('libtpu xla_cuda13', True, None, 'tpu,cpu'),
        ('libtpu', True, None, None),
        ('xla_cuda13', False, CUDA_SUCCESS, None),
        ('libtpu xla_other', False, None, None),
    ],
)
def test_jax_looks_only_for_devices_that_are_there(monkeypatch, compilers, tpu, driver, platforms):
    """driver: what NVIDIA's says when it is asked for GPUs, None where it is not installed."""

    def library(name):
        if driver is None:
            raise OSError(name)
        return types.SimpleNamespace(cuInit=lambda flags: driver)

    said = []
    config = types.SimpleNamespace(jax_platforms=None, update=lambda key, value: said.append((key, value)))
    entries = [types.SimpleNamespace(name=name) for name in compilers.split() if name.startswith('xla')]
    monkeypatch.setattr(platform, 'jax', types.SimpleNamespace(config=config))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: 'libtpu' if name in compilers.split() else None)
    monkeypatch.setattr(importlib.metadata, 'entry_points', lambda group: entries)
    monkeypatch.setattr(platform, '_tpu_here', lambda: tpu)
    monkeypatch.setattr(ctypes, 'CDLL', library)
    platform.leave_out_absent()
    assert said == ([('jax_platforms', platforms)] if platforms else [])
