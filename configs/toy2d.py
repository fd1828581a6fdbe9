"""A mixture of eight Gaussians in the plane, class-conditional: for tests and for a first look.

    diffusion train --config=configs/toy2d.py --workdir=runs/toy2d

Hardware: one CPU core, under a minute. Seen result: all eight modes, each label in its own.
"""

import ml_collections


def get_config():
    return ml_collections.ConfigDict(
        dict(
            data=dict(name='mixture', modes=8, radius=1.0, scale=0.05),
            process=dict(name='VE', sigma_min=0.002, sigma_max=20.0),
            precond=dict(name='edm', sigma_data=0.7),
            density=dict(name='log_normal', mean=-1.5, std=1.4),
            net=dict(name='PointNet', width=128, depth=3),
            optimizer=dict(name='adam', lr=2e-3),
            ema=dict(halflife=50_000, ramp=0.05),
            train=dict(steps=2000, batch=256, cond_dropout=0.1, log_every=100, save_every=1000),
            sampler=dict(name='heun'),
            grid=dict(name='karras', rho=7.0),
            guidance=dict(name='none'),
            sample=dict(steps=18, batch=1024),
            preview=dict(every=0, num=1024),
        )
    )
