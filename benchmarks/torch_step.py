"""The training step of `diffusion train` in PyTorch on the CPU, and its fastest settings."""

import dataclasses
import itertools
import os
import time

import torch
import torch_dit
import torch_unet

ADAM = {'loop': {'foreach': False}, 'foreach': {'foreach': True}, 'fused': {'fused': True}}
NETS = {'UNet': torch_unet, 'DiT': torch_dit}
NULL = {'tokens': 0, 'label': -1}
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


@dataclasses.dataclass(frozen=True)
class Setting:
    """memory: a key of FORMATS; adam: a key of ADAM; threads: of every operation; compiled: by
    torch.compile, the loss and its gradient."""

    memory: str
    adam: str
    threads: int
    compiled: bool = False

    def __str__(self):
        how = 'torch.compile' if self.compiled else 'eager'
        return f'{how}, {self.memory}, {self.adam} Adam, {self.threads} thread(s)'


def settings(config) -> list[Setting]:
    """What is tried. PyTorch's own number of threads leaves hyperthreads out, which may be faster or not."""
    threads = sorted({torch.get_num_threads(), os.cpu_count() or 1})
    formats = FORMATS if config['net']['name'] == 'UNet' else ('contiguous',)  # a DiT works on no pictures
    return [Setting(*choice) for choice in itertools.product(formats, ADAM, threads)]


def unsupported(config) -> str:
    """Why this step is not the one of a resolved config; '' where it is."""
    for section, name in {'precond': 'edm', 'density': 'log_normal', 'optimizer': 'adam'}.items():
        if config[section]['name'] != name:
            return f'{section} {config[section]["name"]}'
    if config['optimizer']['clip']:
        return 'optimizer.clip'
    if config['net']['name'] not in NETS:
        return f'net {config["net"]["name"]}'
    return NETS[config['net']['name']].unsupported(config)


def network(config, facts) -> torch.nn.Module:
    """The network of a resolved config and the facts of its data."""
    return NETS[config['net']['name']].build(config, facts)


def denoising_loss(network, config, image, cond):
    """EDM's loss with the preconditioning and the density of the config.

    image: uint8 or float; cond: {'tokens': int [B, L]} or {'label': int [B]}."""
    data, density, batch = config['precond']['sigma_data'], config['density'], image.shape[0]
    x0 = image.float().div(127.5).sub(1) if image.dtype == torch.uint8 else image
    u = ((torch.rand(()) + torch.arange(batch) / batch) % 1).clamp_(1e-6, 1 - 1e-6)
    sigma = torch.exp(density['mean'] + density['std'] * torch.special.ndtri(u))
    if config['train']['cond_dropout']:
        dropped = torch.rand(batch) < config['train']['cond_dropout']
        cond = {
            name: torch.where(dropped.view(-1, *(1,) * (value.ndim - 1)), NULL[name], value)
            for name, value in cond.items()
        }
    wide = sigma[:, None, None, None]
    square = wide**2 + data**2
    x = torch.addcmul(x0, torch.randn_like(x0), wide)
    output = network(x * square.rsqrt(), sigma.log() / 4, cond)
    scale = wide * data * square.rsqrt()
    error = torch.addcmul(x * (data**2 / square), output, scale) - x0
    return (error**2 / scale**2).mean()


def trainer(config, facts, setting: Setting):
    """(image, cond) -> {'loss', 'grad_norm'}: one step of a new network."""
    torch.manual_seed(config['train']['seed'])
    net = network(config, facts).to(memory_format=FORMATS[setting.memory])
    weights = list(net.parameters())

    def loss_of(image, cond):
        return denoising_loss(net, config, image, cond)

    loss_of = torch.compile(loss_of) if setting.compiled else loss_of
    average = [weight.detach().clone() for weight in weights]
    rule, ema = config['optimizer'], config['ema']
    optimizer = torch.optim.Adam(weights, rule['lr'], (rule['b1'], rule['b2']), **ADAM[setting.adam])
    seen = 0

    def step(image, cond):
        nonlocal seen
        loss = loss_of(image, cond)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        seen += image.shape[0]
        decay = 0.5 ** (image.shape[0] / min(ema['halflife'], ema['ramp'] * seen))
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1 - decay)
            norms = torch._foreach_norm([weight.grad for weight in weights])
            grad_norm = torch.linalg.vector_norm(torch.stack(norms))
        return {'loss': loss.detach(), 'grad_norm': grad_norm}

    return step, sum(weight.numel() for weight in weights)


def prepared(config, batches, setting: Setting):
    """numpy batches as this setting wants them: images [B, C, H, W]."""
    memory, name = FORMATS[setting.memory], 'tokens' if 'text' in config else 'label'
    return [
        (
            torch.from_numpy(batch['image']).permute(0, 3, 1, 2).contiguous(memory_format=memory),
            {name: torch.from_numpy(batch[name]).long()},
        )
        for batch in batches
    ]


def start(setting: Setting):
    """What is set for the whole process. XLA computes with denormals flushed, so PyTorch may too."""
    torch.set_num_threads(setting.threads)
    torch.set_flush_denormal(True)


def fastest(config, facts, batches, slice_s: float) -> dict[Setting, float]:
    """Images/s of every setting, fastest first: the best of three slices, taken in turns so that what else
    the machine does in between falls on all alike."""
    runs = {
        setting: (trainer(config, facts, setting)[0], prepared(config, batches, setting))
        for setting in settings(config)
    }
    found = dict.fromkeys(runs, 0.0)
    for turn in range(4):
        for setting, (step, ready) in runs.items():
            start(setting)
            begin, images = time.perf_counter(), 0
            while time.perf_counter() - begin < slice_s:
                image, cond = ready[images // len(ready[0][0]) % len(ready)]
                step(image, cond)
                images += len(image)
            rate = images / (time.perf_counter() - begin)
            # The first turn warms up.
            found[setting] = max(found[setting], rate) if turn else 0.0
    return dict(sorted(found.items(), key=lambda item: -item[1]))
