"""Text to image on all bundled emoji, 32 x 32, with a small diffusion transformer.

    diffusion train --config=configs/emoji_dit.py --workdir=runs/emoji_dit

Hardware: one GPU, or a CPU and patience; there --config.net.unroll=true makes a step a seventh shorter.
Result: unverified.
"""

import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        dict(
            data=dict(name='emoji', subset='all', image_size=32),
            text=dict(name='words'),
            process=dict(name='Flow'),
            precond=dict(name='flow'),
            density=dict(name='logit_normal', mean=0.0, std=1.0),
            net=dict(name='DiT', patch=4, width=256, depth=8, heads=4, text_width=128, text_layers=2),
            optimizer=dict(name='adamw', lr=5e-4, b2=0.99, weight_decay=0.0, warmup_images=50_000, clip=1.0),
            ema=dict(halflife=100_000, ramp=0.05),
            train=dict(steps=50_000, batch=128, cond_dropout=0.1, labels=False, save_every=2000),
            sampler=dict(name='heun'),
            grid=dict(name='uniform_t'),
            guidance=dict(name='classifier_free', scale=3.0),
            sample=dict(steps=20, batch=64),
            preview=dict(every=2000, num=64, match=512, unseen=('cat with sunglasses', 'blue cat', 'red dog')),
        )
    )
