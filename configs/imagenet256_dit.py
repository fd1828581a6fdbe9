"""Class-conditional ImageNet at 256 x 256 with a DiT-XL on 16 x 16 patches of pixels (Peebles & Xie 2212.09748).

    diffusion train --config=configs/imagenet256_dit.py --workdir=runs/imagenet256_dit

Hardware: 32 accelerators of 16 GB. The paper works on latents of 32 x 32; here the pixels themselves, mirrored at
random as there (Sec. 4). Result: unverified.
"""

import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        dict(
            data=dict(name='tfds', dataset='imagenet2012', split='train', image_size=256),
            augment=dict(name='flip'),
            process=dict(name='Flow'),
            precond=dict(name='x0'),
            density=dict(name='logit_normal', mean=0.8, std=0.8),
            net=dict(name='DiT', patch=16, width=1152, depth=28, heads=16, remat='dots_saveable', dtype='bfloat16'),
            optimizer=dict(name='adamw', lr=1e-4, b2=0.95, weight_decay=0.0, warmup_images=6_400_000, clip=1.0),
            ema=dict(halflife=1_770_000, ramp=0.05),
            train=dict(steps=400_000, batch=1024, cond_dropout=0.1, log_every=100, save_every=5000),
            sampler=dict(name='heun'),
            grid=dict(name='uniform_t'),
            guidance=dict(name='classifier_free', scale=1.5),
            sample=dict(steps=50, batch=256),
            preview=dict(every=10_000, num=64),
            runtime=dict(fsdp=8),
        )
    )
