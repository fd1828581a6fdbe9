"""The networks that metrics see pictures with: Inception with the weights that FID means, or a small classifier that is
trained on the set itself."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion.data import sources
from diffusion.evaluation import protocol, tensorfile
from diffusion.nets import classifier, functional, inception
from diffusion.programs import calls, classifying
from diffusion.runtime import mesh as meshes
from diffusion.runtime import writer

KINDS = ('classifier', 'inception')
PUBLISHED = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'
FILE = 'pt_inception-2015-12-05-6726825d.pth'
URL = f'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}'
CACHE = '.features'  # beside the workdir: runs on one set share its classifier


@dataclasses.dataclass(frozen=True)
class Extractor:
    """label: what results are named by, '' for the published Inception alone; told: of the network, JSON values, for
    the protocol; apply: (params, images uint8 [B, H, W, C]) -> features [B, D], logits [B, K]."""

    label: str
    told: dict
    params: Any
    apply: Callable

    def on(self, grid, batch: int, most: int) -> Callable[[Iterable[np.ndarray]], Iterator[tuple]]:
        """Compiled once for calls of so many pictures: uint8 images [n, H, W, C] in parts -> for each part a pair of
        arrays, the features and the logits. most: pictures in all, where they are fewer than a call's worth."""
        compiled = calls.compiled(
            calls.precise(lambda params, inputs: self.apply(params, inputs['image'])), grid, batch, most
        )
        params = jax.device_put(self.params, meshes.replicated(grid))

        def over(parts):
            for images in parts:
                found = list(compiled.over(params, lambda rows, part=images: {'image': part[rows]}, len(images)))
                yield tuple(np.concatenate(some) for some in zip(*found))

        return over


def add_flags(parser) -> None:
    parser.add_argument(
        '--features',
        default='classifier',
        metavar='NETWORK',
        help='inception, classifier, or either with :FILE, of its weights (default: classifier)',
    )
    parser.add_argument('--features-sha256', metavar='HEX', help='of a FILE of Inception weights that is another')


def open(args, channels: int, own: Callable[[], sources.Source], folder: str) -> Extractor:
    """The network that the flags name, for pictures of so many channels. own: the set that a classifier is trained on
    where none is there; folder: where it then lies. Raises ValueError."""
    kind, _, path = args.features.partition(':')
    if kind not in KINDS:
        raise ValueError(f'--features={args.features}: one of {", ".join(KINDS)}, or one with :FILE')
    if kind == 'inception':
        return _inception(path, args.features_sha256, channels)
    if args.features_sha256:
        raise ValueError('--features-sha256 is of Inception weights: leave it out, or add --features=inception:FILE')
    return _classifier(path or _trained(own(), folder), channels)


def cache(workdir: str) -> str:
    return os.path.join(workdir, os.pardir, CACHE)


def _inception(path, wanted, channels):
    place = Path(path) if path else Path.home() / '.cache' / 'diffusion' / FILE
    if not place.is_file():
        raise ValueError(
            f'there are no Inception weights at {place}: fetch {URL} (sha256 {PUBLISHED}) to there or name its place, '
            '--features=inception:FILE; --features=classifier needs no download'
        )
    if channels not in (1, 3):
        raise ValueError(f'the Inception network sees RGB or grey pictures, these have {channels} channels')
    tensors, _, found = tensorfile.read(place)
    wanted = (wanted or PUBLISHED).lower()
    if len(wanted) < 8 or not found.startswith(wanted):
        raise ValueError(
            f'{place} has sha256 {found}, not {wanted}: it is damaged or other weights; where they are the ones you '
            f'want, say --features-sha256={found}'
        )
    network = functional.functional(lambda rngs: inception.Inception(rngs=rngs))
    told = {
        'network': 'inception-2015-12-05',
        'sha256': found,
        'features': inception.FEATURES,
        'resize': 'bilinear to 299 as TensorFlow 1 (no antialias, corners not aligned)',
        'range': '(x - 128) / 128 of 8 bits',
        'dtype': 'float32',
    }

    def apply(params, images):
        return network.apply(params, images if channels == 3 else images.repeat(3, -1))

    try:
        params = inception.parameters(tensors)
    except ValueError as error:
        raise ValueError(f'{place}: {error}') from error
    return Extractor('' if found == PUBLISHED else f'inception-{found[:8]}', told, params, apply)


def _trained(data, folder) -> Path:
    """The classifier of a set, trained now where it is not there yet. Raises ValueError for a set without labels."""
    if len(data.classes) < 2:
        raise ValueError(
            '--features=classifier is trained on the labels of the set, and this one has none: name one that was '
            'trained on another, --features=classifier:FILE, or --features=inception:FILE'
        )
    recipe = dataclasses.asdict(classifying.RECIPE)
    key = protocol.digest({'data': data.fingerprint, 'classes': list(data.classes), 'recipe': recipe})
    path = Path(folder) / f'classifier-{key}.safetensors'
    if not path.exists():
        params, told = classifying.train(data, classifying.RECIPE)
        with writer.atomic(path) as file:
            file.write(tensorfile.packed(_flat(params), told))
        print(f'classifier of {told["classes"]} classes, held-out accuracy {told["accuracy"]}, kept in {path}')
    return path


def _classifier(path, channels):
    if not Path(path).is_file():
        raise ValueError(f'there is no classifier {path}: --features=classifier makes one of a labelled set')
    tensors, told, found = tensorfile.read(path)
    try:
        size, trained, classes = (int(told[name]) for name in ('size', 'channels', 'classes'))
        network = classifying.network(size, trained, classes)
        shapes = jax.eval_shape(network.init, jax.eval_shape(lambda: jax.random.key(0)))
        params = _nested(tensors, shapes)
    except (KeyError, ValueError) as error:
        raise ValueError(f'{path} is no classifier of this program ({error})') from error
    if trained != channels:
        raise ValueError(f'{path} sees pictures of {trained} channels, these have {channels}')
    known = {
        'network': 'classifier',
        'sha256': found,
        'features': classifier.FEATURES,
        'trained on': told.get('data'),
        'accuracy': told.get('accuracy'),
        'resize': 'none',
        'range': 'x / 127.5 - 1 of 8 bits',
        'dtype': 'float32',
    }
    return Extractor(
        'classifier', known, params, lambda params, images: network.apply(params, classifying.unit(images))
    )


def _flat(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {'.'.join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}


def _nested(tensors, shapes):
    def take(path, leaf):
        value = tensors['.'.join(str(key.key) for key in path)]
        if value.shape != leaf.shape:
            raise ValueError(f'{path[-1].key} has shape {value.shape}')
        return value

    return jax.tree_util.tree_map_with_path(take, shapes)
