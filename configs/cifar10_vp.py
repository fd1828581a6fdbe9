"""Unconditional CIFAR-10 with the VP process and noise prediction of score_sde (Song et al. 2011.13456), DDPM++-style.

    diffusion train --config=configs/cifar10_vp.py --workdir=runs/cifar10_vp

Hardware: 8 accelerators of 16 GB. Song et al. report FID 2.55 for DDPM++ cont. (VP) after 1.3 M steps of 128, half of
the images mirrored (as Ho et al. 2006.11239, App. B).
Result here: unverified.
"""

import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        dict(
            data=dict(name='tfds', dataset='cifar10', split='train'),
            augment=dict(name='flip'),
            process=dict(name='VP', beta_min=0.1, beta_max=20.0, t_min=1e-3),
            precond=dict(name='eps'),
            density=dict(name='uniform_t'),
            net=dict(
                name='UNet',
                width=128,
                multipliers=(1, 2, 2, 2),
                depth=4,
                attention=(1,),
                head_width=256,
                dropout=0.1,
                dtype='bfloat16',
            ),
            optimizer=dict(name='adam', lr=2e-4, b2=0.999, warmup_images=640_000, clip=1.0),
            ema=dict(halflife=890_000, ramp=0.05),
            train=dict(steps=1_300_000, batch=128, labels=False, log_every=100, save_every=10_000),
            sampler=dict(name='ancestral'),
            grid=dict(name='uniform_t'),
            guidance=dict(name='none'),
            sample=dict(steps=1000, batch=512),
            preview=dict(every=10_000, num=64),
        )
    )
