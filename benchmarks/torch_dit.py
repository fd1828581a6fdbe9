"""The DiT of `diffusion.nets.dit` written as a PyTorch user would, with classes and no text, at any size.

Module names follow ours (see `torch_parts.copy_weights`); attention is PyTorch's own fused one.
"""

import torch
import torch_parts
from torch import nn
from torch.nn import functional

from diffusion.nets import layers


class Attention(nn.Module):
    """Self-attention of [B, N, C]."""

    def __init__(self, width, heads):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x):
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(query, key, value)
        return self.out(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two dense layers with a GELU (through tanh, as JAX's) between."""

    def __init__(self, width, hidden):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.down(functional.gelu(self.up(x), approximate='tanh'))


class Block(nn.Module):
    """Attention and an MLP, each modulated and gated by the condition."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.attention, self.mlp = Attention(width, heads), MLP(width, hidden)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x, vector):
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(vector)[:, None].chunk(6, -1)
        x = torch.addcmul(x, gate1, self.attention(modulated(x, scale1, shift1)))
        return torch.addcmul(x, gate2, self.mlp(modulated(x, scale2, shift2)))


def modulated(x, scale, shift):
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class DiT(nn.Module):
    """F(x, noise, cond); x: [B, C, H, W], noise: [B], cond: {'label': [B]} -> [B, C, H, W]."""

    def __init__(self, *, shape, classes, patch, width, depth, heads, mlp_ratio):
        super().__init__()
        height, breadth, channels = shape
        self.condition = torch_parts.Condition(width, classes=classes)
        self.embed = nn.Linear(patch * patch * channels, width)
        self.blocks = nn.ModuleList(Block(width, heads, int(width * mlp_ratio)) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, patch * patch * channels)
        positions = torch.from_numpy(layers.patch_positions(height // patch, breadth // patch, width))
        self.register_buffer('positions', positions, persistent=False)
        self.patch = patch

    def forward(self, x, noise, cond):
        batch, channels, height, width = x.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        vector = self.condition(noise, cond)
        x = x.reshape(batch, channels, rows, p, columns, p).permute(0, 2, 4, 3, 5, 1)
        x = self.embed(x.reshape(batch, rows * columns, -1)) + self.positions
        for block in self.blocks:
            x = block(x, vector)
        scale, shift = self.modulation(vector)[:, None].chunk(2, -1)
        x = self.last(modulated(x, scale, shift)).reshape(batch, rows, columns, p, p, channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height, width)


def unsupported(config) -> str:
    """Why this network is not the one of a resolved config; '' where it is."""
    for key, value in {'dropout': 0.0, 'dtype': 'float32', 'remat': 'none'}.items():
        if config['net'][key] != value:
            return f'net.{key}={config["net"][key]!r}'
    return 'text' if 'text' in config else '' if config['train']['labels'] else 'DiT without classes'


def build(config, facts) -> DiT:
    """The network of a resolved config and the facts of its data."""
    shape = {name: config['net'][name] for name in ('patch', 'width', 'depth', 'heads', 'mlp_ratio')}
    return DiT(shape=facts.shape, classes=len(facts.classes), **shape)
