"""The picture that a network is told beside the noisy one: its maker of a config, and the network that knows it."""

import inspect
from typing import Any

import jax.numpy as jnp

from diffusion import config as configs
from diffusion.nets import functional
from diffusion.wiring import schema
from diffusion.wiring.known import Facts


def conditioning(config: configs.Config, known: Facts) -> Any:
    """The maker of config.conditioning (`core.conditioning`), None without the section. Raises ConfigError."""
    if 'conditioning' not in config:
        return None
    name = config['conditioning']['name']
    if min(known.shape[:2]) < 2:
        raise configs.ConfigError(
            f'config.conditioning.name={name}: these data are points, not pictures: leave the section out'
        )
    nets = schema.SCHEMA['net'].constructors
    told = [net for net, made in nets.items() if 'picture' in inspect.signature(made.__init__).parameters]
    if config['net']['name'] not in told:
        raise configs.ConfigError(
            f'config.conditioning.name={name}: {config["net"]["name"]} takes no picture: use {" or ".join(told)}'
        )
    maker = configs.construct(config, 'conditioning', schema.SCHEMA, channels=known.shape[-1])
    for shape in known.shapes:
        try:
            maker.check(shape)
        except ValueError as error:
            raise configs.ConfigError(f'config.conditioning: {error}') from error
    if not maker.dropped and config['preview']['match']:
        raise configs.ConfigError(
            'config.preview.match draws by captions alone, and this model is never trained without its picture: '
            'set match=0'
        )
    return maker


def with_null(network: functional.Network, null) -> functional.Network:
    """The network that takes the null condition for a picture it is not told. null: [1, 1, K]."""

    def apply(params, x, noise, cond, keys):
        picture = jnp.broadcast_to(cond.get('picture', null), (*x.shape[:3], null.shape[-1]))
        return network.apply(params, x, noise, {**cond, 'picture': picture}, keys)

    return functional.Network(network.init, apply)
