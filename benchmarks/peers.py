"""The other sides of the benchmarks: PyTorch and diffusers on the CPU.

python benchmarks/peers.py SIDE --case=NAME --seconds=S   (what benchmarks/speed.py calls)
"""

import argparse
import json
import sys
import time

import agreement
import cases
import measuring
import torch
import torch_step


def _opened(args):
    config = cases.CASES[args.case].resolved(['runtime.platform=cpu'])
    return config, cases.CASES[args.case].facts(config)


def ceiling(args) -> dict:
    """FLOP/s of PyTorch's matrix product, the best of its sizes."""
    torch.set_num_threads(max(torch.get_num_threads(), 1))
    best = 0.0
    for side in (768, 2048):
        left, right = torch.ones(side, side), torch.ones(side, side)
        taken = measuring.turns({'product': lambda left=left, right=right: left @ right}, args.seconds / 2)['product']
        best = max(best, 2 * side**3 / min(taken))
    return {'products': best}


def tune(args) -> dict:
    """Checks that both networks are one, then tries PyTorch's settings."""
    config, facts = _opened(args)
    reason = torch_step.unsupported(config)
    if reason:
        return {'reason': f'the PyTorch side has no {reason}'}
    checked = agreement.check(config, facts)
    batches = cases.random_batches(config['train']['batch'], facts)
    found = torch_step.fastest(config, facts, batches, min(1.0, args.seconds / 6))
    tried = [{'setting': vars(setting), 'text': str(setting), 'images_per_s': rate} for setting, rate in found.items()]
    return {'agreement': checked, 'tried': tried}


def step(args) -> dict:
    """PyTorch's training step with one setting."""
    config, facts = _opened(args)
    setting = torch_step.Setting(**json.loads(args.setting))
    torch_step.start(setting)
    advance, weights = torch_step.trainer(config, facts, setting)
    ready = torch_step.prepared(config, cases.random_batches(config['train']['batch'], facts), setting)
    begin = time.perf_counter()
    try:
        advance(*ready[0])
    except Exception as error:
        if not setting.compiled:
            raise
        return {'reason': f'torch.compile does not work here: {type(error).__name__}'}
    first = time.perf_counter() - begin
    rate = measuring.timed(
        lambda i: advance(*ready[i % len(ready)]), lambda: None, config['train']['batch'], args.seconds
    )
    return {'images_per_s': rate, 'weights': weights, 'first_s': first}


# Ours by name: diffusers' scheduler, its arguments, and the evaluations it takes of so many steps.
SCHEDULERS = {
    'euler': ('EulerDiscreteScheduler', {'use_karras_sigmas': True}),
    'heun': ('HeunDiscreteScheduler', {'use_karras_sigmas': True}),
    'dpmpp_2m': ('DPMSolverMultistepScheduler', {'use_karras_sigmas': True}),
    'ancestral': ('EulerAncestralDiscreteScheduler', {}),
    'ddim': ('DDIMScheduler', {}),
}


def diffusers_sampling(args) -> dict:
    """diffusers' UNet2DModel, about as large as ours, with its schedulers: whole loops, and its evaluations alone.

    The network is another one, without a condition and without guidance: its rate is no ratio to ours, the share of
    time outside of the network is.
    """
    import diffusers

    config, facts = _opened(args)
    width, batch = config['net']['width'], args.batch
    channels = tuple(width * multiplier for multiplier in config['net']['multipliers'])
    network = diffusers.UNet2DModel(
        sample_size=facts.shape[0],
        in_channels=3,
        out_channels=3,
        block_out_channels=channels,
        layers_per_block=config['net']['depth'],
        down_block_types=('DownBlock2D',) * len(channels),
        up_block_types=('UpBlock2D',) * len(channels),
        norm_num_groups=8,
        add_attention=False,
    ).eval()
    found = {}
    for name in args.samplers.split(','):
        if name not in SCHEDULERS:
            continue
        kind, kwargs = SCHEDULERS[name]
        scheduler = getattr(diffusers, kind)(**kwargs)
        scheduler.set_timesteps(args.steps)
        evaluations = len(scheduler.timesteps)

        def call(scheduler=scheduler):
            scheduler.set_timesteps(args.steps)
            x = torch.randn(batch, 3, *facts.shape[:2]) * scheduler.init_noise_sigma
            for time_step in scheduler.timesteps:
                noise = network(scheduler.scale_model_input(x, time_step), time_step).sample
                x = scheduler.step(noise, time_step, x).prev_sample
            return x

        def bare(evaluations=evaluations):
            x = torch.zeros(batch, 3, *facts.shape[:2])
            for _ in range(evaluations):
                x = network(x, 500).sample
            return x

        with torch.inference_mode():
            taken = measuring.turns({'call': call, 'network': bare}, args.seconds)
        outside = [1 - network_s / call_s for call_s, network_s in zip(taken['call'], taken['network'])]
        found[name] = {
            'images_per_s': [batch / seconds for seconds in taken['call']],
            'outside_all': outside,
            'evaluations': evaluations,
            'scheduler': kind,
        }
    weights = sum(weight.numel() for weight in network.parameters())
    return {'samplers': found, 'batch': batch, 'weights': weights}


SIDES = {'ceiling': ceiling, 'tune': tune, 'step': step, 'diffusers': diffusers_sampling}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument('side', choices=SIDES)
    parser.add_argument('--case', default=cases.EMOJI)
    parser.add_argument('--seconds', type=float, default=5)
    parser.add_argument('--setting')
    parser.add_argument('--samplers', default='heun')
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--steps', type=int, default=18)
    args = parser.parse_args(argv)
    print(json.dumps(SIDES[args.side](args)))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
