"""Your own images, 32 x 32, with EDM's training (Karras et al. 2206.00364): class-conditional where the images lie in
class folders or carry labels, else unconditional.

    diffusion train --config=configs/folder.py --config.data.path=DIR --workdir=runs/mine

DIR: a folder of images, of Parquet files or of tars, an .npz ...: docs/data.md. For larger pictures
--config.data.image_size=64 --config.net.multipliers=1,2,2,2; for captions a copy of this file with
text=dict(name='words'). Hardware: one accelerator of 16 GB, or patience. Result: unverified.
"""

import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        dict(
            data=dict(name='images', path='', image_size=32),
            process=dict(name='VE', sigma_min=0.002, sigma_max=80.0),
            precond=dict(name='edm', sigma_data=0.5),
            density=dict(name='log_normal', mean=-1.2, std=1.2),
            net=dict(name='UNet', width=64, multipliers=(1, 2, 2), depth=2, attention=(1,), dropout=0.1),
            optimizer=dict(name='adam', lr=5e-4, b2=0.99, warmup_images=50_000),
            ema=dict(halflife=100_000, ramp=0.05),
            train=dict(steps=100_000, batch=128, cond_dropout=0.1, log_every=50, save_every=2000),
            sampler=dict(name='heun'),
            grid=dict(name='karras', rho=7.0),
            guidance=dict(name='none'),
            sample=dict(steps=18, batch=64),
            preview=dict(every=2000, num=64),
        )
    )
