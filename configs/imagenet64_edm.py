"""Class-conditional ImageNet at 64 x 64 with EDM's training (Karras et al. 2206.00364) on an ADM-sized U-Net.

    diffusion train --config=configs/imagenet64_edm.py --workdir=runs/imagenet64_edm

Hardware: 32 accelerators of 32 GB (`diffusion plan`: 28.6 GiB a chip on v4:2x4x4, 27.7 on v6e:4x8). Without
augmentation, as EDM's (Table 2). Result: unverified.
"""

import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        dict(
            data=dict(name='tfds', dataset='imagenet2012', split='train', image_size=64),
            process=dict(name='VE', sigma_min=0.002, sigma_max=80.0),
            precond=dict(name='edm', sigma_data=0.5),
            density=dict(name='log_normal', mean=-1.2, std=1.2),
            net=dict(
                name='UNet',
                width=192,
                multipliers=(1, 2, 3, 4),
                depth=3,
                attention=(1, 2, 3),
                head_width=64,
                dropout=0.1,
                dtype='bfloat16',
            ),
            optimizer=dict(name='adam', lr=1e-4, b2=0.999, warmup_images=10_000_000),
            ema=dict(halflife=50_000_000, ramp=0.05),
            train=dict(steps=610_000, batch=4096, cond_dropout=0.1, log_every=100, save_every=5000),
            sampler=dict(name='heun', churn=40.0, churn_min=0.05, churn_max=50.0, churn_noise=1.003),
            grid=dict(name='karras', rho=7.0),
            guidance=dict(name='none'),
            sample=dict(steps=256, batch=512),
            preview=dict(every=5000, num=64),
            runtime=dict(fsdp=8),
        )
    )
