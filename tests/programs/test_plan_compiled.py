"""`diffusion plan` with the compilers of TPUs and GPUs that are not there."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from diffusion.runtime import gpus, hlo, mesh, products, topology
from tests.programs import conftest

pytestmark = pytest.mark.long
INSTALL = "pip install '.[plan]'"
needs_compiler = pytest.mark.skipif(not topology.read('v5e:2x2').compiler, reason=f'needs the TPU compiler: {INSTALL}')
needs_cuda = pytest.mark.skipif(
    not topology.read('h100:4').compiler, reason=f"needs XLA's compiler for GPUs: {INSTALL}"
)
SMALL = ('plan', *(word for word in conftest.TINY if 'runtime' not in word))


@needs_compiler
def test_a_small_run_fits_and_two_plans_at_once_do_not_collide(diffusion, tmp_path):
    words = (*SMALL, '--topology=v5e:2x2', '--price=1.2', '--mfu=0.5')
    outs = [tmp_path / 'one.json', tmp_path / 'other.json']
    both = [diffusion(*words, *more, f'--out={out}', start=True) for out, more in zip(outs, ((), ('--quick',)))]
    said = [one.communicate(timeout=300)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    for text in said:
        assert 'it fits' in text and 'rm ' not in text and 'arning' not in text, text
    plan, quick = (json.loads(out.read_text()) for out in outs)
    assert ['QUICK' in text for text in said] == [False, True] == [plan['quick'], quick['quick']]
    for name, one in plan['programs'].items():
        other = quick['programs'][name]
        assert one['flops'] == other['flops'] and one['exchanged'] == other['exchanged'], name
        assert one['bytes'] < other['bytes'] and one['memory']['peak'] < 2 * other['memory']['peak'], name
    assert plan['chips'] == 4 and plan['mesh'] == {'slice': 1, 'data': 4, 'fsdp': 1, 'tensor': 1}
    # Parameters of float32, Adam's two moments of them and its counter, one average.
    weights = plan['weights']
    assert plan['state']['parameters'] == plan['state']['averages'] == 4 * weights
    assert 8 * weights <= plan['state']['optimizer'] < 8 * weights + 100
    for one in plan['programs'].values():
        memory = one['memory']
        assert memory['peak'] == sum(size for name, size in memory.items() if name != 'peak')
        assert one['fits'] and one['flops'] > 0 and one['bytes'] > 0
    assert plan['programs']['train']['memory']['arguments'] >= 4 * 4 * weights
    # What is reduced is at least the gradients. Two biases that are added to one sum have one gradient, which the
    # compiler reduces once: those of four skips and the convolutions beside them, those of noise level and text.
    twins = 16 + 8 + 8 + 16 + 32
    assert plan['programs']['train']['collectives']['all-reduce']['bytes'] >= 4 * (weights - twins)
    training = plan['training']
    step = training['model_flops'] / (4 * 197e12) / 0.5
    assert training['step_s'] == pytest.approx(max(step, plan['programs']['train']['seconds']['bound']))
    assert training['cost'] == pytest.approx(training['step_s'] * training['steps'] / 3600 * 4 * 1.2)


@needs_compiler
def test_a_batch_that_does_not_fit(diffusion, tmp_path):
    done = diffusion(*SMALL, '--topology=v5e:2x2', '--config.train.batch=4194304', f'--out={tmp_path / "plan.json"}')
    assert done.returncode == 1
    assert 'train does not fit: needs ' in done.stdout and '15.75GiB' in done.stdout and 'Traceback' not in done.stderr
    plan = json.loads((tmp_path / 'plan.json').read_text())
    assert not plan['fits'] and not plan['programs']['train']['fits'] and plan['programs']['sample']['fits']


@needs_cuda
def test_gpus_by_their_compiler(diffusion, tmp_path):
    """Two nodes, and the products as they are written; then a batch that does not fit."""
    out = tmp_path / 'plan.json'
    done = diffusion(*SMALL, '--topology=a100:16', '--config.train.batch=64', f'--out={out}')
    assert done.returncode == 0 and 'it fits' in done.stdout and 'UNTUNED' in done.stdout, done.stderr
    assert 'arning' not in done.stderr and '\nW' not in done.stderr, done.stderr
    plan = json.loads(out.read_text())
    assert plan['compiler'].startswith('jax-cuda') and not plan['estimated']
    assert plan['mesh'] == {'slice': 2, 'data': 8, 'fsdp': 1, 'tensor': 1}
    train, training = plan['programs']['train'], plan['training']
    # Convolutions with a stride are padded before they are made: their products with that padding count.
    assert train['flops'] * 16 == pytest.approx(training['model_flops'], rel=0.02)
    assert train['memory']['arguments'] >= 4 * 4 * plan['weights']
    assert train['exchanged'] >= 2 * plan['weights'] and train['between_slices'] == train['exchanged']
    few = [f'--config.preview.{name}=0' for name in ('num', 'every', 'match')]
    done = diffusion(*SMALL, *few, '--topology=a100-40:4', '--config.train.batch=4194304', f'--out={out}')
    assert done.returncode == 1 and 'train does not fit: needs ' in done.stdout, done.stderr
    assert 'of the 27.9 GiB of a chip' in done.stdout


@needs_cuda
@pytest.mark.parametrize('kind', gpus.GPUS)
def test_the_products_of_programs_for_gpus(kind):
    """Gradients of a convolution, and a loop of products, against the count of what is written."""
    place = jax.sharding.SingleDeviceSharding(topology.devices(topology.read(f'{kind}:1'))[0])

    def step(x, kernel, stack):
        numbers = ('NHWC', 'HWIO', 'NHWC')
        made = lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=numbers)
        rows = made.reshape(-1, stack.shape[-1])
        return jnp.sum(jnp.sin(lax.scan(lambda y, w: (jnp.tanh(y @ w), None), rows, stack)[0].astype(jnp.float32)))

    sides = (4, 16, 16, 32), (3, 3, 32, 64), (5, 64, 64)
    given = [jax.ShapeDtypeStruct(side, jnp.bfloat16, sharding=place) for side in sides]
    grads = jax.grad(step, (0, 1, 2))
    text = jax.jit(grads).lower(*given).compile(topology.read(f'{kind}:1').options).as_text()
    assert hlo.cost(text, 1).flops == products.flops(grads, *given)


@needs_compiler
def test_loops_of_programs_for_a_tpu_are_counted():
    """A scan of products split over four chips, against the count by hand; XLA for TPUs writes no lengths of loops."""
    devices = topology.devices(topology.read('v5e:2x2'))
    grid = mesh.make(devices, fsdp=4)

    def placed(shape, *axes):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(grid, PartitionSpec(*axes)))

    def step(x, stack):
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0]

    arguments = placed((1024, 256), 'fsdp'), placed((7, 256, 256))
    text = jax.jit(step).lower(*arguments).compile().as_text()
    found = hlo.cost(text, 4)
    assert found.flops == 7 * 2 * (1024 // 4) * 256 * 256 and found.exchanged() == 0 and found.open == 0
    # Batched products are convolutions there, whose gaps are no products.
    batched = placed((8, 128, 64)), placed((8, 64, 256))
    text = jax.jit(jnp.matmul).lower(*batched).compile().as_text()
    assert hlo.cost(text, 4).flops == 2 * 8 * 128 * 64 * 256
