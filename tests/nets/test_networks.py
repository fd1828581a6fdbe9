import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets import condition, dit, functional, mlp, unet

SMALL = {
    'unet': (
        unet.UNet,
        dict(width=8, multipliers=(1, 2), attention=(1,), cross_attention=(0,), head_width=8),
    ),
    'dit': (dit.DiT, dict(patch=4, width=32, depth=2, heads=2, text_layers=1, text_width=32)),
    'points': (mlp.PointNet, dict(width=16, depth=1)),
}
CONDITIONS = {
    'nothing': {},
    'classes': {'classes': 3},
    'text': {'vocabulary': 11, 'length': 4},
    'both': {'classes': 3, 'vocabulary': 11, 'length': 4},
}


def network(kind, conditions, **kwargs):
    construct, small = SMALL[kind]
    small = {k: v for k, v in small.items() if k != 'cross_attention' or 'vocabulary' in conditions}
    return functional.functional(lambda rngs: construct(channels=3, rngs=rngs, **{**small, **kwargs}, **conditions))


@functools.cache
def begun(kind, conditions):
    """A network as it starts."""
    net = network(kind, CONDITIONS[conditions])
    return net, jax.jit(net.init)(jax.random.key(0))


def inputs(conditions, batch=2, size=8):
    x = jax.random.normal(jax.random.key(1), (batch, size, size, 3))
    null = condition.null(conditions.get('classes', 0), conditions.get('length', 0))
    cond = {name: jnp.broadcast_to(value, (batch, *value.shape)) for name, value in null.items()}
    return x, jnp.linspace(-1, 1, batch), cond


def awake(params, seed=0):
    """Parameters with their zero-initialised outputs filled, so that every path matters."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)


@pytest.mark.parametrize('conditions', CONDITIONS.values(), ids=CONDITIONS)
@pytest.mark.parametrize('kind', SMALL)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_shapes_and_types(kind, conditions, dtype):
    net = network(kind, conditions, dtype=dtype)
    params = jax.eval_shape(net.init, jax.eval_shape(lambda: jax.random.key(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype('float32')}
    out = jax.eval_shape(net.apply, params, *inputs(conditions), None)
    assert out.shape == (2, 8, 8, 3) and out.dtype == jnp.float32


@pytest.mark.parametrize('kind', SMALL)
def test_starts_as_zero_and_every_parameter_learns(kind):
    net, params = begun(kind, 'both')
    x, noise, cond = inputs(CONDITIONS['both'])
    cond = {'label': jnp.asarray([0, 2]), 'tokens': jnp.asarray([[1, 2, 0, 0], [3, 4, 5, 0]])}
    np.testing.assert_array_equal(jax.jit(net.apply)(params, x, noise, cond, None), 0)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(net.apply(p, x, noise, cond, None) ** 2)))(awake(params))
    flat = jax.tree_util.tree_leaves_with_path(grads)
    still = [jax.tree_util.keystr(path) for path, grad in flat if not np.any(np.abs(grad) > 1e-12)]
    # Softmax is blind to a shift of all its inputs: the bias of attention's keys has no gradient by construction.
    assert not [path for path in still if "['key']['bias']" not in path]


@pytest.mark.parametrize('kind', SMALL)
def test_conditions_and_noise_reach_the_output(kind):
    net, params = begun(kind, 'both')
    params = awake(params)
    x, noise, cond = inputs(CONDITIONS['both'])
    call = jax.jit(net.apply)
    base = call(params, x, noise, cond, None)
    others = {
        'noise': (noise + 0.1, cond),
        'label': (noise, {**cond, 'label': jnp.asarray([0, 0])}),
        'tokens': (noise, {**cond, 'tokens': cond['tokens'].at[:, 0].set(3)}),
    }
    for name, (level, given) in others.items():
        assert np.abs(call(params, x, level, given, None) - base).max() > 1e-4, name


def test_what_an_augmentation_tells_is_heard_and_nothing_told_is_zero():
    net = functional.functional(
        lambda rngs: condition.Condition(16, classes=3, augment=9, text_width=8, text_layers=0, rngs=rngs)
    )
    params = jax.jit(net.init)(jax.random.key(0))
    noise, cond = jnp.linspace(-1, 1, 9), {'label': jnp.zeros(9, jnp.int32)}

    def heard(params, told):
        return net.apply(params, noise, {**cond, **told})[0]

    call = jax.jit(heard)
    base = call(params, {})
    np.testing.assert_array_equal(call(params, {'augment': jnp.zeros((9, 9))}), base)
    assert np.all(np.abs(call(params, {'augment': jnp.eye(9)}) - base).max(1) > 1e-3)
    for kind in ('unet', 'dit'):
        whole = network(kind, {'augment': 9})
        shapes = jax.eval_shape(whole.init, jax.eval_shape(lambda: jax.random.key(0)))
        assert set(shapes['condition']['augment']) == {'kernel'}


@pytest.mark.parametrize('kind', ['unet', 'dit'])
def test_padding_is_not_looked_at(kind):
    """Text that is one token longer by a masked position leads to the same picture."""
    net, params = begun(kind, 'both')
    params = awake(params)
    x, noise, cond = inputs(CONDITIONS['both'])
    short, long = jnp.asarray([[3, 1, 0]] * 2), jnp.asarray([[3, 1, 0, 0]] * 2)
    a, b = (jax.jit(net.apply)(params, x, noise, {**cond, 'tokens': tokens}, None) for tokens in (short, long))
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize('kind', ['unet', 'dit'])
def test_dropout_belongs_to_examples(kind):
    net, params = network(kind, {}, dropout=0.5), awake(begun(kind, 'nothing')[1])
    x, noise, cond = inputs({}, batch=4)
    keys = jax.random.split(jax.random.key(5), 4)
    call = jax.jit(net.apply)
    whole = call(params, x, noise, cond, keys)
    half = call(params, x[1:3], noise[1:3], cond, keys[1:3])
    np.testing.assert_allclose(whole[1:3], half, atol=1e-5)
    assert np.abs(whole - call(params, x, noise, cond, None)).max() > 1e-3


@pytest.mark.long
@pytest.mark.parametrize(
    'kind,remat',
    [('dit', 'full'), ('dit', 'dots_saveable'), ('dit', 'dots_with_no_batch_dims_saveable'), ('unet', 'full')],
)
def test_remat_changes_no_gradient(kind, remat):
    plain, recomputed = gradient(kind, 'none'), gradient(kind, remat)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), plain, recomputed)


@pytest.mark.long
def test_unrolled_blocks_are_the_same_function_without_a_loop():
    looped, unrolled = gradient('dit', 'none'), gradient('dit', 'full', unroll=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), looped, unrolled)
    x, noise, cond = inputs({})
    loops = {}
    for unroll in (False, True):
        net = network('dit', {}, unroll=unroll)
        params = jax.eval_shape(net.init, jax.eval_shape(lambda: jax.random.key(0)))
        loops[unroll] = jax.jit(net.apply).lower(params, x, noise, cond, None).as_text().count('stablehlo.while')
    assert loops[True] < loops[False]


@functools.cache
def gradient(kind, remat, **more):
    net, (x, noise, cond) = network(kind, {}, remat=remat, **more), inputs({})
    call = jax.jit(jax.grad(lambda p: jnp.sum(net.apply(p, x, noise, cond, None) ** 2)))
    return call(awake(begun(kind, 'nothing')[1]))


@pytest.mark.parametrize('kind', ['dit', 'unet'])
def test_remat_computes_again_what_it_does_not_save(kind):
    x, noise, cond = inputs({})

    def products(policy):
        net = network(kind, {}, remat=policy)
        params = jax.eval_shape(net.init, jax.eval_shape(lambda: jax.random.key(0)))
        gradient = jax.grad(lambda p: jnp.sum(net.apply(p, x, noise, cond, None) ** 2))
        text = str(jax.make_jaxpr(gradient)(params))
        return text.count('dot_general') + text.count('conv_general_dilated')

    assert products('full') > products('none')


@pytest.mark.parametrize('kind', SMALL)
def test_what_no_network_computes_in_is_refused(kind):
    with pytest.raises(ValueError, match="dtype='float16': what the network computes in, float32 or bfloat16"):
        network(kind, {}, dtype='float16')


def test_dit_program_does_not_grow_with_depth():
    x, noise, cond = inputs({})

    def size(depth):
        net = network('dit', {}, depth=depth)
        params = jax.eval_shape(net.init, jax.eval_shape(lambda: jax.random.key(0)))
        return len(jax.jit(net.apply).lower(params, x, noise, cond, None).as_text().splitlines())

    assert size(2) == size(12)


@pytest.mark.parametrize('kind', ['unet', 'dit'])
def test_a_size_that_does_not_fit_says_so(kind):
    net = network(kind, {})
    params = jax.eval_shape(net.init, jax.eval_shape(lambda: jax.random.key(0)))
    with pytest.raises(ValueError, match='must divide by'):
        jax.eval_shape(net.apply, params, *inputs({}, size=7), None)


@pytest.mark.parametrize('shape', [(8, 16), (12, 4)])
@pytest.mark.parametrize('kind', ['unet', 'dit'])
def test_pictures_need_not_be_square(kind, shape):
    net = network(kind, {})
    params = jax.eval_shape(net.init, jax.eval_shape(lambda: jax.random.key(0)))
    assert jax.eval_shape(net.apply, params, jnp.zeros((2, *shape, 3)), jnp.zeros(2), {}, None).shape == (
        2,
        *shape,
        3,
    )
