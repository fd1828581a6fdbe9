"""Text to image on all the bundled emoji, 32 x 32: cross-attention to a text tower, or to a pretrained encoder.

    diffusion train --config=configs/emoji_text.py --workdir=runs/emoji_text
    diffusion train --config=configs/emoji_text.py --workdir=runs/emoji_text \\
        --config.text.name=encoder --config.text.path=DIR_OF_A_BERT

Hardware: 1 accelerator, about an hour. Result: unverified. docs/text.md says what DIR is.
"""

import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        dict(
            data=dict(name='emoji', subset='all', image_size=32),
            text=dict(name='words'),
            process=dict(name='VE', sigma_min=0.002, sigma_max=80.0),
            precond=dict(name='edm', sigma_data=0.6),
            density=dict(name='log_normal', mean=-0.8, std=1.2),
            net=dict(
                name='UNet',
                width=96,
                multipliers=(1, 2, 2),
                depth=2,
                attention=(2,),
                cross_attention=(1, 2),
                text_width=128,
                text_layers=2,
                dropout=0.1,
            ),
            optimizer=dict(name='adam', lr=5e-4, b2=0.99, clip=1.0),
            ema=dict(halflife=200_000, ramp=0.05),
            train=dict(steps=20_000, batch=256, cond_dropout=0.1, labels=False, save_every=2000),
            sampler=dict(name='heun'),
            grid=dict(name='karras', rho=7.0),
            guidance=dict(name='classifier_free', scale=2.0),
            sample=dict(steps=18, batch=64),
            preview=dict(
                every=2000, num=48, match=256, unseen=('cat with sunglasses', 'blue heart on fire', 'a small red house')
            ),
        )
    )
