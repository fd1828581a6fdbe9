"""The networks that metrics see pictures with: Inception with the weights that FID means, DINOv2, or a small classifier
that is trained on the set itself."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.data import sources
from diffusion.evaluation import protocol, tensorfile
from diffusion.nets import classifier, clip, dinov2, functional, inception, resizing, safetensors
from diffusion.programs import calls, classifying, fetching
from diffusion.runtime import mesh as meshes
from diffusion.runtime import writer

KINDS = ('classifier', 'inception', 'clip', 'dinov2', *(name for name in fetching.FILES if name.startswith('dinov2-')))
# What Inception is shown: pictures as TensorFlow 1 resized them, which FID means, or as clean-FID does.
RESIZES = {
    'tf1': (resizing.tensorflow, 'bilinear to 299 as TensorFlow 1 (no antialias, corners not aligned)'),
    'clean': (resizing.smooth, 'bicubic to 299 with antialias as clean-FID'),
}
FLAGS = ('features', 'features_sha256', 'resize')
CACHE = '.features'  # beside the workdir: runs on one set share its classifier


@dataclasses.dataclass(frozen=True)
class Extractor:
    """label: what results are named by, '' for the published Inception alone; told: of the network, JSON values, for
    the protocol; apply: (params, images uint8 [B, H, W, C]) -> features [B, D], logits [B, K]; classes: K."""

    label: str
    told: dict
    params: Any
    apply: Callable
    classes: int = 0

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


# For metrics of pixels alone.
BLIND = Extractor('', {'network': 'none', 'features': 0}, {}, lambda params, images: (jnp.zeros((len(images), 0)),) * 2)


def add_flags(parser) -> None:
    parser.add_argument(
        '--features',
        metavar='NETWORK',
        help='inception, dinov2, clip:FILE, classifier, or one with :FILE, of its weights (default: classifier)',
    )
    parser.add_argument('--features-sha256', metavar='HEX', help='of a FILE of weights that is not a published one')
    parser.add_argument(
        '--resize', choices=RESIZES, help='of inception: as TensorFlow 1, or as clean-FID (default: tf1)'
    )


def open(args, channels: int, own: Callable[[], sources.Source], folder: str) -> Extractor:
    """The network that the flags name, for pictures of so many channels. own: the set that a classifier is trained on
    where none is there; folder: where it then lies. Raises ValueError."""
    kind, _, path = (args.features or 'classifier').partition(':')
    if kind not in KINDS:
        raise ValueError(f'--features={args.features}: one of {", ".join(KINDS)}, or one with :FILE')
    if args.resize and kind != 'inception':
        raise ValueError(f'--resize={args.resize} is of --features=inception: leave it out')
    if kind == 'inception':
        return _inception(*_published(kind, path, args.features_sha256, channels), args.resize or 'tf1', channels)
    if kind == 'clip':
        return _clip(path, args.features_sha256, channels)
    if kind != 'classifier':
        return _dinov2(*_published(kind, path, args.features_sha256, channels), channels)
    if args.features_sha256:
        raise ValueError('--features-sha256 is of published weights: leave it out, or add --features=inception:FILE')
    return _classifier(path or _trained(own(), folder), channels)


def cache(workdir: str) -> str:
    return os.path.join(workdir, os.pardir, CACHE)


def _published(kind, path, wanted, channels):
    """Where weights lie, their tensors and hash. wanted: what the hash begins with, None for a published file's."""
    name = 'dinov2-l' if kind == 'dinov2' else kind
    place = Path(path) if path else fetching.FILES[name].path
    if not place.is_file():
        of = fetching.FILES[name]
        raise ValueError(
            f'there are no {name} weights at {place}: diffusion evaluate fetch {name} brings them; or fetch {of.url} '
            f'(sha256 {of.sha256}) to there, or name their place, --features={kind}:FILE; --features=classifier needs '
            'no download'
        )
    _check_channels(kind, channels)
    tensors, _, found = tensorfile.read(place)
    known = [one.sha256 for other, one in fetching.FILES.items() if other.startswith(kind)]
    if wanted and len(wanted) < 8:
        raise ValueError(f'--features-sha256={wanted}: at least 8 digits')
    if not found.startswith(wanted.lower() if wanted else tuple(known)):
        raise ValueError(
            f'{place} has sha256 {found}, not {wanted or " or ".join(known)}: it is damaged or other weights; where '
            f'they are the ones you want, say --features-sha256={found}'
        )
    return place, tensors, found


def _coloured(images, channels):
    return images if channels == 3 else images.repeat(3, -1)


def _inception(place, tensors, found, resize, channels):
    function, said = RESIZES[resize]
    network = functional.functional(lambda rngs: inception.Inception(rngs=rngs, resize=function))
    told = {
        'network': 'inception-2015-12-05',
        'sha256': found,
        'features': inception.FEATURES,
        'resize': said,
        'range': '(x - 128) / 128 of 8 bits',
        'dtype': 'float32',
    }
    with _of(place):
        params = inception.parameters(tensors)
    # FID without any qualifier is of the published weights seen as TensorFlow 1 did.
    published = found == fetching.FILES['inception'].sha256
    label = '-'.join(([] if published else [f'inception-{found[:8]}']) + ([] if resize == 'tf1' else [resize]))

    def apply(params, images):
        return network.apply(params, _coloured(images, channels))

    return Extractor(label, told, params, apply, inception.CLASSES)


def _dinov2(place, tensors, found, channels):
    with _of(place):
        tensors = dinov2.named(tensors)
        sizes = dinov2.shape(tensors)
        params = dinov2.parameters(tensors, **sizes)
    network = functional.functional(lambda rngs: dinov2.DINOv2(**sizes, rngs=rngs))
    told = {
        'network': 'dinov2',
        'sha256': found,
        **sizes,
        'features': sizes['width'],
        'resize': f'bicubic to {dinov2.SIZE} with antialias, as Pillow on floats',
        'range': "ImageNet's mean and deviation",
        'dtype': 'float32',
    }

    def apply(params, images):
        return network.apply(params, dinov2.seen(_coloured(images, channels))), jnp.zeros((len(images), 0))

    name = next((name for name, one in fetching.FILES.items() if one.sha256 == found), f'dinov2-{found[:8]}')
    return Extractor(name, told, params, apply)


def _clip(path, wanted, channels):
    if not path or not Path(path).is_file():
        raise ValueError(
            f'--features=clip:{path or "FILE"}: the model.safetensors of a CLIP in the layout of Hugging Face is '
            'wanted; --features=classifier needs no download'
        )
    _check_channels('clip', channels)
    tensors, _, found = tensorfile.read(path)
    if wanted and not found.startswith(wanted.lower()):
        raise ValueError(f'{path} has sha256 {found}, not {wanted}: it is damaged or other weights')
    with _of(path):
        sizes, params = clip.image_tower(tensors)
    network = functional.functional(lambda rngs: clip.ImageTower(**sizes, rngs=rngs))
    told = {
        'network': 'clip',
        'sha256': found,
        **sizes,
        'features': sizes['dimensions'],
        'resize': f'bicubic to {sizes["patch"] * sizes["side"]} with antialias, as Pillow on floats',
        'range': "CLIP's mean and deviation; unit vectors",
        'dtype': 'float32',
    }

    def apply(params, images):
        return network.apply(params, _coloured(images, channels)), jnp.zeros((len(images), 0))

    return Extractor(f'clip-{found[:8]}', told, params, apply)


def _check_channels(kind, channels):
    if channels not in (1, 3):
        raise ValueError(f'{kind} sees RGB or grey pictures, these have {channels} channels')


@contextlib.contextmanager
def _of(place):
    """Around the reading of weights: what is wrong with them is wrong with this file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f'{place}: {error}') from error


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
            file.write(safetensors.packed(_flat(params), told))
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

    def apply(params, images):
        return network.apply(params, classifying.unit(images))

    return Extractor('classifier', known, params, apply, classes)


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
