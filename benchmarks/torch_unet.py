"""The U-Net of `diffusion.nets.unet` written as a PyTorch user would, so that both trainers do the same work.

It covers what configs/emoji.py uses (text as a bag of words, no attention, no dropout) at any width,
multipliers and depth. Module names follow ours (see `torch_parts.copy_weights`).
"""

import torch
import torch_parts
from torch import nn
from torch.nn import functional

# Flax's default; PyTorch's is 1e-5.
NORM_EPS = 1e-6


def group_norm(features):
    return nn.GroupNorm(min(8, features // 4), features, eps=NORM_EPS)


class ResBlock(nn.Module):
    """norm, SiLU, conv, FiLM norm, SiLU, conv: [B, c_in, H, W] -> [B, c_out, H, W]."""

    def __init__(self, features_in, features, embedding):
        super().__init__()
        self.norm1 = group_norm(features_in)
        self.conv1 = nn.Conv2d(features_in, features, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * features)
        self.norm2 = group_norm(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.skip = nn.Conv2d(features_in, features, 1) if features_in != features else nn.Identity()

    def forward(self, x, vector):
        y = self.conv1(functional.silu(self.norm1(x)))
        scale, shift = self.film(vector)[:, :, None, None].chunk(2, 1)
        y = functional.silu(torch.addcmul(shift, self.norm2(y), 1 + scale))
        return self.conv2(y) + self.skip(x)


class UNet(nn.Module):
    """F(x, noise, cond); x: [B, C, H, W], noise: [B], cond: {'tokens': [B, L]} -> [B, C, H, W]."""

    def __init__(self, *, channels, vocabulary, width, multipliers, depth, embedding, text_width):
        super().__init__()
        embedding = embedding or 4 * width
        self.condition = torch_parts.Condition(embedding, vocabulary=vocabulary, text_width=text_width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down, self.up = nn.ModuleDict(), nn.ModuleDict()
        features, skips = width, [width]
        for level, multiplier in enumerate(multipliers):
            for index in range(depth):
                self.down[f'{level}_{index}'] = ResBlock(features, width * multiplier, embedding)
                features = width * multiplier
                skips.append(features)
        self.middle = ResBlock(features, features, embedding)
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for index in range(depth + (level == 0)):
                self.up[f'{level}_{index}'] = ResBlock(features + skips.pop(), width * multiplier, embedding)
                features = width * multiplier
        self.norm = group_norm(features)
        self.last = nn.Conv2d(features, channels, 3, padding=1)
        self.levels, self.depth = len(multipliers), depth

    def forward(self, x, noise, cond):
        vector = self.condition(noise, cond)
        x = self.first(x)
        skips = [x]
        for level in range(self.levels):
            x = functional.avg_pool2d(x, 2) if level else x
            for index in range(self.depth):
                x = self.down[f'{level}_{index}'](x, vector)
                skips.append(x)
        x = self.middle(x, vector)
        for level in reversed(range(self.levels)):
            for index in range(self.depth + (level == 0)):
                x = self.up[f'{level}_{index}'](torch.cat([x, skips.pop()], 1), vector)
            x = functional.interpolate(x, scale_factor=2, mode='nearest') if level else x
        return self.last(functional.silu(self.norm(x)))


def unsupported(config) -> str:
    """Why this network is not the one of a resolved config; '' where it is."""
    net, wanted = config['net'], {'attention': (), 'cross_attention': (), 'text_layers': 0, 'dropout': 0.0}
    for key, value in {**wanted, 'dtype': 'float32'}.items():
        if net[key] != value:
            return f'net.{key}={net[key]!r}'
    if 'text' not in config or config['train']['labels']:
        return 'conditions other than text'
    return ''


def build(config, facts) -> UNet:
    """The network of a resolved config and the facts of its data."""
    names = ('width', 'multipliers', 'depth', 'embedding', 'text_width')
    shape = {name: config['net'][name] for name in names}
    return UNet(channels=facts.shape[-1], vocabulary=facts.tokenizer.size, **shape)
