"""What networks are told of text: words or the states of an encoder, and what lies between two texts."""

import jax
import numpy as np
import pytest

from diffusion.nets import condition, dit, functional, unet

LENGTH, STATES = 6, 5
NETS = {
    'UNet': lambda **kw: unet.UNet(width=8, multipliers=(1, 2), cross_attention=(1,), text_width=8, **kw),
    'DiT': lambda **kw: dit.DiT(patch=2, width=16, depth=2, heads=2, text_width=8, **kw),
}
TEXTS = {'words': dict(vocabulary=9, length=LENGTH), 'states': dict(states=STATES, length=LENGTH)}


@pytest.fixture(scope='module', params=[('UNet', 'states'), ('DiT', 'words')], ids=lambda pair: ' '.join(pair))
def told(request):
    """(params stirred so that nothing hides behind a zero, F of (tokens and more) with all else fixed, texts)."""
    net, kind = request.param
    network = functional.functional(lambda rngs: NETS[net](channels=3, rngs=rngs, **TEXTS[kind]))
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * random.standard_normal(leaf.shape).astype(np.float32),
        jax.device_get(network.init(jax.random.key(0))),
    )
    x = random.standard_normal((3, 8, 8, 3)).astype(np.float32)
    apply = jax.jit(lambda cond: network.apply(params, x, np.zeros(3, np.float32), cond, None))
    lengths = np.array([[4], [2], [1]])
    shown = np.arange(LENGTH) < lengths
    if kind == 'words':
        one, two = (np.where(shown, random.integers(1, 9, (3, LENGTH)), 0).astype(np.int32) for _ in range(2))
        return params, apply, one, two[::-1]
    one, two = (
        np.where(shown[..., None], random.standard_normal((3, LENGTH, STATES)), 0).astype(np.float16) for _ in range(2)
    )
    return params, apply, one, two[::-1]


def test_between_two_texts_both_ends_are_the_texts(told):
    _, apply, one, two = told
    first, last = apply({'tokens': one}), apply({'tokens': two})
    for share, end in ((0.0, first), (1.0, last)):
        found = apply({'tokens': one, 'to': two, 'mix': np.full(3, share, np.float32)})
        np.testing.assert_allclose(found, end, rtol=2e-5, atol=2e-5)
    middle = apply({'tokens': one, 'to': two, 'mix': np.full(3, 0.5, np.float32)})
    assert min(np.abs(middle - end).max() for end in (first, last)) > 1e-2
    near = apply({'tokens': one, 'to': two, 'mix': np.full(3, 0.02, np.float32)})
    assert np.abs(near - first).mean() < 0.5 * np.abs(middle - first).mean()
    # The way there is the way back.
    back = apply({'tokens': two, 'to': one, 'mix': np.full(3, 0.5, np.float32)})
    np.testing.assert_allclose(back, middle, rtol=2e-4, atol=2e-4)


def test_every_token_is_heeded_and_padding_is_not(told):
    params, apply, one, two = told
    other = one.copy()
    other[0, 3] = two[2, 3]
    before, after = apply({'tokens': one}), apply({'tokens': other})
    assert np.abs(before[0] - after[0]).max() > 1e-4
    np.testing.assert_array_equal(before[1:], after[1:])
    null = condition.null(
        **{key: value for key, value in TEXTS['words' if one.ndim == 2 else 'states'].items() if key != 'vocabulary'}
    )
    assert null['tokens'].shape == one.shape[1:] and null['tokens'].dtype == one.dtype
    nothing = apply({'tokens': np.broadcast_to(null['tokens'], one.shape)})
    assert np.all(np.isfinite(nothing)) and np.abs(nothing - before).max() > 1e-3
    assert any('start' in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))
