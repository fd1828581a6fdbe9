"""References that other programs have published as .npz, by what they hold."""

from collections.abc import Callable

import numpy as np

from diffusion.evaluation import moments
from diffusion.nets import inception

# The arrays that are looked for in a file.
NAMES = ('mu', 'sigma', 'feats', 'arr_0')


def describe(arrays: dict[str, np.ndarray]) -> str:
    """What a file holds, in a line. Raises ValueError for one that is no reference."""
    if 'arr_0' in arrays:
        images = arrays['arr_0']
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f'arr_0 is {images.dtype} {images.shape}: pictures of 8 bits, [N, H, W, C], are wanted')
        held = f'{len(images):,} pictures {"x".join(map(str, images.shape[1:]))}'
        if {'mu', 'sigma'} <= set(arrays):
            return f"ADM's layout: {held}, and mu and sigma of Inception features, perhaps of more pictures than these"
        return f"ADM's layout of samples: {held}"
    if 'feats' in arrays:
        return f"clean-fid's layout for KID: Inception features of {len(arrays['feats']):,} pictures"
    if {'mu', 'sigma'} <= set(arrays):
        return (
            'mu and sigma of Inception features of some number of pictures, as pytorch-fid, clean-fid and EDM lay them'
        )
    raise ValueError(
        'it is no reference: neither mu and sigma (pytorch-fid, clean-fid, EDM), nor pictures arr_0 (ADM), nor feats '
        '(clean-fid)'
    )


def read(arrays: dict[str, np.ndarray], network: dict, shape: tuple, see: Callable):
    """Moments, features or None, and their count or None where it is not known, for samples of this shape.

    network: what the extractor tells of itself; see: uint8 images in parts -> features and logits in parts. The network
    of what is computed already is not told in any of these layouts: Inception is taken for granted. Raises ValueError.
    """
    describe(arrays)
    known = network['network'].startswith('inception')
    if 'arr_0' not in arrays and not known:
        raise ValueError('it does not say which network it was made with: --features=inception alone suits it')
    for name, wanted in (('mu', (inception.FEATURES,)), ('sigma', (inception.FEATURES,) * 2)):
        if name in arrays and arrays[name].shape != wanted:
            raise ValueError(f'{name} has shape {arrays[name].shape}, that of Inception features is {wanted}')
    features = None
    if 'arr_0' in arrays:
        images = arrays['arr_0']
        if images.shape[1:] != tuple(shape):
            sizes = ['x'.join(map(str, one)) for one in (images.shape[1:], shape)]
            raise ValueError(f'it is of pictures {sizes[0]}, the samples are {sizes[1]}')
        features = np.concatenate([one for one, _ in see([images])])
    elif 'feats' in arrays:
        features = np.asarray(arrays['feats'], np.float32)
        if features.ndim != 2 or features.shape[1] != inception.FEATURES or not np.isfinite(features).all():
            raise ValueError(f'feats is not finite numbers [N, {inception.FEATURES}], but {features.shape}')
    if known and {'mu', 'sigma'} <= set(arrays):
        mean, covariance = (np.asarray(arrays[name], np.float64) for name in ('mu', 'sigma'))
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError('it holds numbers that are not finite')
        # Moments whose covariance is this one, whatever the count.
        return moments.Moments(2.0, mean, covariance), features, None
    return moments.of(features), features, len(features)
