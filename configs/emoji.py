"""Text to image on the bundled emoji faces, 16 x 16: the README's first command.

    diffusion train --config=configs/emoji.py --workdir=runs/emoji

Hardware: 2 CPU cores, 5 to 6 minutes. Seen result: see README.
"""

import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        dict(
            data=dict(name='emoji', subset='faces', image_size=16),
            text=dict(name='words'),
            process=dict(name='VE', sigma_min=0.002, sigma_max=80.0),
            precond=dict(name='edm', sigma_data=0.6),
            density=dict(name='log_normal', mean=-0.8, std=1.2),
            net=dict(name='UNet', width=32, multipliers=(1, 2, 2)),
            optimizer=dict(name='adam', lr=1e-3, b2=0.99),
            ema=dict(halflife=5_000, ramp=0.05),
            train=dict(steps=1300, batch=64, cond_dropout=0.1, labels=False, save_every=650),
            sampler=dict(name='heun'),
            grid=dict(name='karras', rho=7.0),
            guidance=dict(name='classifier_free', scale=2.0),
            sample=dict(steps=18, batch=64),
            preview=dict(
                every=650,
                num=48,
                match=137,
                unseen=(
                    'cat with sunglasses',
                    'dog with sunglasses',
                    'crying cat with heart-eyes',
                    'nerd cat',
                    'mouse with monocle',
                    'monkey with tears of joy',
                    'winking dog',
                    'pouting face with halo',
                ),
            ),
        )
    )
