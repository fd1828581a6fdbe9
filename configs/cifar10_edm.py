"""Unconditional CIFAR-10 with EDM's training (Karras et al. 2206.00364, Table 1) on a DDPM++-sized U-Net.

    diffusion train --config=configs/cifar10_edm.py --workdir=runs/cifar10_edm

Hardware: 8 accelerators of 16 GB. EDM reports FID 1.97 with its own U-Net, which this config has not; the augmentation
is theirs (Table 2, App. F.2). Result here: unverified.
"""

import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        dict(
            data=dict(name='tfds', dataset='cifar10', split='train'),
            augment=dict(name='edm', p=0.12),
            process=dict(name='VE', sigma_min=0.002, sigma_max=80.0),
            precond=dict(name='edm', sigma_data=0.5),
            density=dict(name='log_normal', mean=-1.2, std=1.2),
            net=dict(
                name='UNet',
                width=128,
                multipliers=(2, 2, 2),
                depth=4,
                attention=(1,),
                head_width=256,
                dropout=0.13,
                dtype='bfloat16',
            ),
            optimizer=dict(name='adam', lr=1e-3, b2=0.999, warmup_images=10_000_000),
            ema=dict(halflife=500_000, ramp=0.05),
            train=dict(steps=390_625, batch=512, labels=False, log_every=100, save_every=5000),
            sampler=dict(name='heun'),
            grid=dict(name='karras', rho=7.0),
            guidance=dict(name='none'),
            sample=dict(steps=18, batch=512),
            preview=dict(every=5000, num=64),
        )
    )
