"""Our side of the benchmarks, each measurement as the program that a user runs computes it.

python benchmarks/ours.py SIDE --case=NAME --seconds=S --cache=DIR   (what benchmarks/speed.py calls)
"""

import argparse
import json
import statistics
import sys
import tempfile
import time

import cases
import jax
import jax.numpy as jnp
import measuring
import numpy as np
from jax import lax

from diffusion import build
from diffusion.programs import calls, ceilings, drawing, examples, loglikelihood, steps
from diffusion.runtime import checkpoint, compilation, mesh, platform, products, state


class Run:
    """A case wired as `diffusion train` wires it."""

    def __init__(self, args, more=()):
        self.config = config = cases.CASES[args.case].resolved([f'runtime.platform={args.platform}', *more])
        runtime, self.batch = config['runtime'], config['train']['batch']
        devices = platform.configure(runtime['platform'], args.devices, self.batch)
        compilation.cache(args.cache)
        self.facts = cases.CASES[args.case].facts(config)
        self.run = build.experiment(config, self.facts)
        self.grid = mesh.make(devices, runtime['fsdp'], runtime['tensor'], runtime['slices'])
        run = self.run
        self.target = state.abstract(self.grid, run.network.init, run.optimizer, run.memory, run.ema)
        self.state = state.create(self.target, run.network.init, run.optimizer, run.train.seed, run.memory, run.ema)

    @property
    def weights(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.target.params))

    def step(self):
        """advance(i), which takes a step, and finish(), which waits; and what the step was before it was compiled."""
        jitted = steps.jitted(self.run, self.grid, self.target)
        compiled = jitted.lower(self.target, self.run.batch_shapes()).compile()
        batches = [mesh.put(self.grid, self.run.inputs(one)) for one in cases.random_batches(self.batch, self.facts)]

        def advance(i):
            with jax.transfer_guard('disallow'):
                self.state, _ = compiled(self.state, batches[i % len(batches)])

        return advance, lambda: jax.block_until_ready(self.state), jitted


def ceiling(args) -> dict:
    """What the machine reaches at most."""
    devices = platform.configure(args.platform, args.devices, 64)
    found = ceilings.measure(devices, args.seconds)
    return {'products': found.products, 'copy': found.copy, 'devices': len(devices)}


def step(args) -> dict:
    """Training steps on batches held ready."""
    ours = Run(args, args.set)
    begin = time.perf_counter()
    advance, finish, jitted = ours.step()
    compiling = time.perf_counter() - begin
    rate = measuring.timed(advance, finish, ours.batch, args.seconds)
    flops = products.flops(jitted, ours.target, ours.run.batch_shapes())
    found = {'images_per_s': rate, 'compile_s': compiling, 'missed': compilation.TALLY.missed, 'weights': ours.weights}
    return {**found, 'flops': flops / ours.batch, 'devices': ours.grid.size}


def sampling(args) -> dict:
    """The sampling call of `diffusion sample` and as many evaluations of the same guided network in one scan."""
    ours = Run(args, [f'sample.batch={args.batch}'])
    run, batch = ours.run, args.batch
    cond = {'seed': np.arange(batch, dtype=np.int32), **drawing.conditions(run, batch)}
    cond = mesh.put(ours.grid, cond)
    weights = jax.device_put(ours.state.params, mesh.replicated(ours.grid))
    found = {}
    for name in args.samplers.split(','):
        config = build.override(ours.config, [f'sampler.name={name}', f'sample.steps={args.steps}'])
        artist = drawing.artist(run, config, ours.grid, batch)
        fixed = (weights, *jax.device_put((artist.sigmas, artist.scale, artist.beside), mesh.replicated(ours.grid)))
        evaluations = int(jax.device_get(artist.calls.function(fixed, cond).nfe)[0])
        network = _network(ours, batch, evaluations)
        levels = jnp.geomspace(artist.sigmas[0], artist.sigmas[-2], evaluations, dtype=jnp.float32)
        bare = (weights, *jax.device_put((np.asarray(levels), artist.scale), mesh.replicated(ours.grid)))
        both = {
            'call': lambda artist=artist, fixed=fixed: jax.block_until_ready(artist.calls.function(fixed, cond)),
            'network': lambda network=network, bare=bare: jax.block_until_ready(network(bare, cond)),
        }
        taken = measuring.turns(both, args.seconds)
        outside = [1 - network / call for call, network in zip(taken['call'], taken['network'])]
        found[name] = {
            'images_per_s': [batch / seconds for seconds in taken['call']],
            'outside': statistics.median(outside),
            'outside_all': outside,
            'evaluations': evaluations,
        }
    return {'samplers': found, 'batch': batch}


def _network(ours, batch, evaluations):
    shape, guided = ours.facts.shape, ours.config['guidance'].get('scale', 1.0) != 1

    def scanned(fixed, inputs):
        params, levels, scale = fixed
        cond = {name: value for name, value in inputs.items() if name != 'seed'}
        denoise = build.denoise(ours.run, params, cond, scale if guided else None)
        x = jnp.zeros((batch, *shape)) + inputs['seed'].astype(jnp.float32)[:, None, None, None]

        def body(x, level):
            return denoise(x, jnp.full(batch, level)), None

        return lax.scan(body, x, levels, length=evaluations)[0]

    split = mesh.batched(ours.grid)
    return jax.jit(scanned, in_shardings=(None, split), out_shardings=split)


def saving(args) -> dict:
    """What a checkpoint that is written beside the steps costs them, against as many steps without one."""
    ours = Run(args)
    advance, finish, _ = ours.step()
    rate = measuring.timed(advance, finish, 1, 1.0)
    many = max(int(args.seconds * rate), 8)
    plain, beside, blocked = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        saved = checkpoint.Checkpoints(folder)
        for turn in range(args.turns + 1):
            begin = time.perf_counter()
            for i in range(many):
                advance(i)
            finish()
            plain.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            saved.save(turn + 1, ours.state, {})
            blocked.append(time.perf_counter() - begin)
            for i in range(many):
                advance(i)
            finish()
            beside.append(time.perf_counter() - begin)
            saved.wait()
        saved.close()
    lost = [after - before for before, after in zip(plain, beside)]
    # The first save imports and starts what the others find there.
    return {
        'step_s': statistics.median(plain) / many,
        'blocked_s': blocked[1:],
        'lost_s': lost[1:],
        'every': ours.config['train']['save_every'],
        'megabytes': sum(leaf.nbytes for leaf in jax.tree.leaves(ours.state)) / 1e6,
    }


def likelihood(args) -> dict:
    """Bits per dimension of examples, as `diffusion evaluate --metrics=bpd`, of a network that has taken some steps."""
    ours = Run(args)
    advance, finish, _ = ours.step()
    for i in range(20):
        advance(i)
    finish()
    parser = argparse.ArgumentParser()
    loglikelihood.add_flags(parser)
    asked = parser.parse_args([])
    asked.seed = 0
    data = build.source(ours.config)
    batch = args.batch
    rows = examples.gathered(ours.run, data, np.arange(batch))
    compiled = loglikelihood.bpd(ours.run, ours.grid, asked).programs(batch, batch)['exact']
    weights = jax.device_put(ours.state.params, mesh.replicated(ours.grid))

    def once():
        return next(calls.Calls.over(compiled, weights, lambda chosen: {k: v[chosen] for k, v in rows.items()}, batch))

    taken = measuring.turns({'call': once}, args.seconds)['call']
    nfe = once().nfe
    return {'images_per_s': [batch / seconds for seconds in taken], 'evaluations': float(np.mean(nfe)), 'batch': batch}


SIDES = {'ceiling': ceiling, 'step': step, 'sampling': sampling, 'saving': saving, 'likelihood': likelihood}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument('side', choices=SIDES)
    parser.add_argument('--case', default=cases.EMOJI)
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE')
    parser.add_argument('--seconds', type=float, default=5)
    parser.add_argument('--cache', required=True)
    parser.add_argument('--platform', default='cpu')
    parser.add_argument('--devices', type=int, default=0)
    parser.add_argument('--samplers', default='heun')
    parser.add_argument('--steps', type=int, default=18)
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--turns', type=int, default=3)
    args = parser.parse_args(argv)
    print(json.dumps(SIDES[args.side](args)))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
