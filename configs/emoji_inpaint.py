"""Inpainting on the bundled emoji faces, 16 x 16: the model of configs/emoji.py, further trained to fill holes.

    diffusion train --config=configs/emoji.py --workdir=runs/emoji
    diffusion train --config=configs/emoji_inpaint.py --workdir=runs/emoji_inpaint

Hardware: 2 CPU cores, 3 to 4 minutes beside the first. Seen result: see docs/editing.md.
"""

import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        dict(
            data=dict(name='emoji', subset='faces', image_size=16),
            text=dict(name='words'),
            init_from=dict(path='runs/emoji'),
            conditioning=dict(name='Inpaint', boxes=1.0, strokes=1.0, half=1.0, full=0.1),
            process=dict(name='VE', sigma_min=0.002, sigma_max=80.0),
            precond=dict(name='edm', sigma_data=0.6),
            density=dict(name='log_normal', mean=-0.8, std=1.2),
            net=dict(name='UNet', width=32, multipliers=(1, 2, 2)),
            optimizer=dict(name='adam', lr=1e-3, b2=0.99),
            ema=dict(halflife=3_000, ramp=0.05),
            # Half of them without words: these describe a whole face, and a network that has them heeds nothing else.
            train=dict(steps=500, batch=64, cond_dropout=0.5, labels=False, save_every=250),
            sampler=dict(name='heun'),
            grid=dict(name='karras', rho=7.0),
            guidance=dict(name='classifier_free', scale=2.0),
            sample=dict(steps=18, batch=64),
            preview=dict(every=125, num=48, unseen=('cat with sunglasses', 'crying cat with heart-eyes')),
        )
    )
