"""What a network is told besides the image: the noise level, a class label, text."""

import functools

import numpy as np
from flax import nnx

from diffusion.nets import layers, text


class Condition(nnx.Module):
    """Embeds the noise level and the conditions into one vector, and the text into tokens besides.

    cond holds 'label': [B] int32 in [-1, classes) where the set has classes, and 'tokens': [B, L] int32 in
    [0, vocabulary) where it has captions, or [B, L, states] of a pretrained encoder, rows of zeros being padding.
    Label -1 and token 0 are the null condition. 'to', like 'tokens', and 'mix': [B] in [0, 1] ask for what lies between
    two texts: at 0 that of tokens, at 1 that of to. Where the training augments, it holds 'augment' besides,
    [B, augment] numbers that say how; left out they are 0, as where samples are drawn.
    """

    def __init__(
        self,
        features,
        *,
        classes=0,
        vocabulary=0,
        length=0,
        states=0,
        augment=0,
        text_width=64,
        text_layers=0,
        rngs,
        dtype=None,
    ):
        self.features = features
        # Without a bias, so that nothing done adds nothing.
        self.augment = layers.linear(augment, features, rngs=rngs, dtype=dtype, bias=False) if augment else None
        self.noise = layers.MLP(features, features, features, rngs=rngs, dtype=dtype)
        self.label = layers.Embed(classes + 1, features, dtype=dtype, rngs=rngs) if classes else None
        tower = functools.partial(text.TextTower, layers=text_layers, rngs=rngs, dtype=dtype)
        self.text = tower(vocabulary, length, text_width, features, states=states) if vocabulary or states else None

    def __call__(self, noise, cond):
        """noise: [B] -> vector: [B, features], tokens: [B, L, text_width] or None, mask: [B, L] or None."""
        features = layers.noise_features(noise, self.features)
        if self.augment is not None and 'augment' in cond:
            features = features + self.augment(cond['augment'])
        vector = self.noise(features)
        if self.label is not None:
            vector = vector + layers.spread(self.label(cond['label'] + 1))
        tokens = mask = None
        if self.text is not None:
            tokens, mask, pooled = self.text(cond['tokens'])
            if 'mix' in cond:
                tokens, mask, pooled = text.between((tokens, mask, pooled), self.text(cond['to']), cond['mix'])
            vector = vector + pooled
        return nnx.silu(vector), tokens, mask


def null(classes=0, length=0, states=0):
    """The null condition that `Condition` understands: a dict of numpy arrays without the batch axis."""
    cond = {}
    if classes:
        cond['label'] = np.full((), -1, np.int32)
    if length:
        cond['tokens'] = np.zeros((length, states), np.float16) if states else np.zeros((length,), np.int32)
    return cond
