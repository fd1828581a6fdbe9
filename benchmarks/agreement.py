"""That the PyTorch network of the benchmark is ours: as many weights, with the same ones the same output."""

import jax
import numpy as np
import torch
import torch_parts
import torch_step

from diffusion import build

TOLERANCE = 1e-4


def check(config, facts) -> dict:
    """{'weights', 'output': largest difference of outputs}. AssertionError where the networks differ."""
    run = build.experiment(config, facts)
    shapes = jax.eval_shape(run.network.init, jax.random.key(0))
    rng = np.random.default_rng(1)
    # Drawn, not initialised: where our layers start as zero, any network agrees.
    params = jax.tree.map_with_path(lambda path, leaf: _drawn(rng, leaf.shape, path[0].key == 'blocks'), shapes)
    network = torch_step.network(config, facts)
    ours = sum(leaf.size for leaf in jax.tree.leaves(params))
    theirs = sum(weight.numel() for weight in network.parameters())
    assert ours == theirs, f'{ours:,} weights, PyTorch {theirs:,}'
    torch_parts.copy_weights(network, params)
    x = rng.standard_normal((5, *facts.shape), np.float32)
    noise = rng.uniform(-1.5, 1, 5).astype(np.float32)
    cond = _conditions(rng, facts)
    expected = np.asarray(jax.jit(run.network.apply)(params, x, noise, cond, None))
    with torch.no_grad():
        theirs = {name: torch.from_numpy(value) for name, value in cond.items()}
        output = network(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(noise), theirs)
    difference = np.abs(expected - output.permute(0, 2, 3, 1).numpy()).max()
    # Weights are drawn so that the output is of order one; a tolerance means nothing next to zeros.
    assert 0.1 < expected.std() < 10, f'outputs have a standard deviation of {expected.std():.2g}'
    assert difference < TOLERANCE, f'outputs differ by {difference:.2g}'
    return {'weights': ours, 'output': float(difference)}


def _conditions(rng, facts):
    """Five, of which the first is none."""
    if facts.tokenizer:
        tokens = rng.integers(0, facts.tokenizer.size, (5, facts.tokenizer.length), np.int32)
        tokens[0] = 0
        return {'tokens': tokens}
    label = rng.integers(0, len(facts.classes), 5, np.int32)
    label[0] = -1
    return {'label': label}


def _drawn(rng, shape, stacked):
    own = shape[1:] if stacked else shape  # blocks lie one on another
    width = np.prod(own[:-1]) if len(own) > 1 else 4.0
    return (rng.standard_normal(shape) / np.sqrt(width)).astype(np.float32) + (len(own) == 1) * np.float32(0.5)
