import json
import math
import types

import jax
import numpy as np
import pytest
from scipy import stats

from diffusion.core import process
from diffusion.data import pipeline
from diffusion.programs import calls, evaluate, loglikelihood
from diffusion.runtime import mesh
from tests import oracle

CHEAP = ('--solver=bosh3', '--rtol=1e-2', '--atol=1e-2', '--num=8', '--batch=8')


def result(folder, name):
    return json.loads((folder / 'eval' / name).read_text())


def test_bits_per_dimension_of_a_run_are_written_with_their_protocol(call, trained):
    words = ('evaluate', f'--workdir={trained}', '--metrics=bpd', *CHEAP, '--probes=2')
    done = call(*words)
    assert done.returncode == 0, done.stderr
    found = result(trained, 'bpd_step_8.json')
    assert f'bpd {found["value"]:.4f} ± {found["standard_error"]:.4f} bits/dim' in done.stdout
    assert 'evaluations of the model' in done.stdout
    assert found['unit'] == 'bits/dim' and found['weights'] == 'ema' and found['step'] == 8
    assert found['protocol']['solver'] == {'name': 'bosh3', 'rtol': 0.01, 'atol': 0.01, 'max_steps': 1000}
    assert found['protocol']['probes'] == 2 and found['protocol']['dequantisation'] == 'uniform'
    assert found['data']['num'] == 8 and found['data']['examples'] == 137 and len(found['data']['fingerprint']) == 32
    assert found['versions']['jax'] == jax.__version__ and 'commit' in found
    assert 0 < found['probe_error'] <= found['standard_error']

    before = (trained / 'eval' / 'bpd_step_8.json').read_bytes()
    again = call(*words)
    assert again.returncode == 0 and 'measured before, --overwrite measures again' in again.stdout
    assert (trained / 'eval' / 'bpd_step_8.json').read_bytes() == before


@pytest.mark.parametrize(
    'flags,say',
    [
        (['--metrics=bdp'], "no metric 'bdp': did you mean 'bpd'"),
        (['--metrics=vendi'], 'there are: bpd, nll'),
        (['--metrics='], 'each once'),
        (['--metrics=nll'], '--metrics=bpd'),
        (['--metrics=bpd', '--num=138'], 'there are 137 examples'),
        (['--metrics=bpd', '--batch=0'], 'at least 1'),
        (['--metrics=bpd', '--seed=-1'], 'seeds lie in'),
        (['--metrics=bpd', '--split=test'], 'config.data.split does not exist'),
        (['--metrics=bpd', '--probe=exact'], 'here 768 (at most 256)'),
        (['--metrics=bpd', '--probe=exact', '--probes=2'], 'leave out --probes'),
        (['--metrics=bpd', '--probe=rademachre'], 'invalid choice'),
        (['--metrics=bpd', '--solver=dopri'], 'invalid choice'),
        (['--metrics=bpd', '--step=5'], 'there are 4, 8'),
        (['--metrics=bpd', '--guidance=2'], 'no flag'),
        (['--metrics=bpd', '--config.guidance.scale=2'], 'when evaluating, choose in'),
        (['--metrics=bpd', '--config.process.sigma_max=9'], 'fixed by the training'),
        (['--metric=bpd'], '--metrics'),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_writes_nothing(call, trained, flags, say):
    before = sorted((trained / 'eval').glob('*'))
    done = call('evaluate', f'--workdir={trained}', '--overwrite', *flags)
    assert done.returncode == 2, done.stdout + done.stderr
    assert say in done.stderr and done.stderr.count('\n') == 1
    assert sorted((trained / 'eval').glob('*')) == before


@pytest.mark.long
def test_points_have_a_density_and_not_bits(call, points):
    for flags, say in (
        (['--metrics=bpd'], '--metrics=nll'),
        (['--metrics=nll', '--dequantisation=uniform'], 'leave it out'),
        (['--metrics=nll', '--probes=0'], 'at least 1'),
        (['--metrics=nll', '--bound=0'], 'at least 1 step'),
        (['--metrics=nll', '--rtol=0'], 'tolerances are above 0'),
        (['--metrics=nll', '--max-steps=2'], 'did not come to the end'),
    ):
        refused = call('evaluate', f'--workdir={points}', *flags)
        assert refused.returncode == 2 and say in refused.stderr, refused.stderr
    assert not (points / 'eval').exists()
    words = ('evaluate', f'--workdir={points}', '--metrics=nll', '--probe=exact', '--num=256')
    done = call(*words, '--batch=256', '--bound=200')
    assert done.returncode == 0, done.stderr
    found = result(points, 'nll_step_400.json')
    assert found['unit'] == 'nats/dim of the density' and 'nats/dim of the density' in done.stdout
    # The entropy of eight far modes of deviation 0.05: what no model of them can come below.
    entropy = (0.5 * math.log(2 * math.pi * math.e * 0.05**2) * 2 + math.log(8)) / 2
    assert entropy - 4 * found['standard_error'] < found['value'] < entropy + 0.6
    assert found['value'] < found['bound']['value'] + 4 * found['bound']['standard_error']
    parts = [found['bound'][name] for name in ('prior', 'diffusion', 'reconstruction')]
    assert found['bound']['value'] == pytest.approx(sum(parts), rel=1e-5) and 'bound ' in done.stdout
    assert call(*words, '--batch=256', '--overwrite').returncode == 0
    # Another protocol, so a file of its own beside the first.
    (other,) = (points / 'eval').glob('nll_*_step_400.json')
    again = result(points, other.name)
    assert again['value'] == found['value'] and 'bound' not in again


LAW = oracle.Mixture(np.ones(1), np.array([[0.3] * 4]), 0.04 * np.eye(4)[None])


def exact_run(forward):
    """What a metric asks of a run, for 2 x 2 pictures of a Gaussian with its exact denoiser."""

    def denoiser(params, x, sigma, cond, keys):
        return LAW.denoise(x.reshape(len(x), -1), sigma).reshape(x.shape)

    facts = types.SimpleNamespace(shape=(2, 2, 1), dtype='uint8')
    return types.SimpleNamespace(facts=facts, process=forward, denoiser=denoiser, null={})


@pytest.mark.parametrize('forward', [process.VE(), process.VP()], ids=lambda forward: type(forward).__name__)
def test_bits_of_a_gaussian_are_those_of_its_256_values(forward):
    """The probability of a value is the integral of the smoothed density over its bin, here by scipy."""
    run = exact_run(forward)
    low = float(forward.nsr_range()[0])
    images = np.asarray(LAW.sample(jax.random.key(0), 256)).reshape(256, 2, 2, 1)
    images = np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)
    spread = math.sqrt(0.04 + low**2)
    edges = (images[..., None] + np.array([-0.5, 0.5])) / 127.5 - 1
    exact = -np.log2(np.diff(stats.norm.cdf(edges, 0.3, spread))[..., 0]).mean()
    args = evaluate._parser().parse(['--workdir=x', '--metrics=bpd', '--probe=exact', '--bound=100'])[0]
    metric = loglikelihood.bpd(run, mesh.make(jax.devices()), args)
    inputs = {'image': images, 'index': np.arange(256, dtype=np.int32)}
    # In three calls, the last of them filled up: what is measured does not depend on it.
    report, _ = metric.summary(metric.estimate({}, loglikelihood.Examples(inputs, 104, 0, ''), (0, 256)))
    # Dequantisation costs of the order of the bin over the deviation, squared; the prior's end m z / sigma_max.
    assert report['value'] == pytest.approx(exact, abs=1e-3)
    assert exact < report['bound']['value'] < exact + 1


def test_every_example_weighs_once_whatever_the_devices_and_the_batch():
    """10,007, a prime: the last call of eight devices is filled up, and what fills it counts nowhere."""
    grid = mesh.make(jax.devices())
    assert mesh.shards(grid) == 8
    count = 10_007
    for batch in (256, 1000, 20_000):
        seen = calls.compiled(lambda weights, inputs: inputs['value'] * weights, grid, batch, count)
        parts = list(seen.over(np.float32(2), lambda rows: {'value': rows.astype(np.float32)}, count))
        np.testing.assert_array_equal(np.concatenate(parts), 2 * np.arange(count, dtype=np.float32))
    ids = pipeline.example_ids(np.arange(count), count, 3)
    np.testing.assert_array_equal(np.sort(ids), np.arange(count))
