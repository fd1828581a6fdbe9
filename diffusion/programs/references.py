"""What samples are measured against: features of a set, computed now or stored by `diffusion evaluate stats`."""

import dataclasses
import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np

from diffusion.data import sources
from diffusion.evaluation import moments, protocol
from diffusion.nets import inception
from diffusion.runtime import status, writer

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Reference:
    """features: float32 [N, D], None where only their mean and covariance are known; count: N, None where it is not
    known; told: JSON values for the protocol."""

    moments: moments.Moments
    features: np.ndarray | None
    count: int | None
    told: dict


def made_of(data: sources.Source, said: dict) -> dict:
    """What is told of `of_data` before it is computed."""
    return {'fingerprint': data.fingerprint, 'shape': list(data.shape), 'made': said}


def kept(folder, data: sources.Source, extractor, grid, batch: int, said: dict) -> Reference:
    """`of_data`, computed once for all runs whose workdirs lie beside each other: it is kept in `folder`."""
    key = protocol.digest({'network': extractor.told, **made_of(data, said)})
    path = Path(folder) / f'reference-{key}.npz'
    if path.exists():
        try:
            return read(str(path), extractor, data.shape)
        except ValueError as error:
            print(f'{error}: computed again', file=sys.stderr)
    found = of_data(data, extractor, grid, batch, said)
    save(path, found, extractor.told)
    return found


def of_data(data: sources.Source, extractor, grid, batch: int, said: dict) -> Reference:
    """Of every example of a set that can be read. said: how the pictures were made, JSON values."""

    def parts(line):
        for start in range(0, len(data), batch):
            found = data.gather(np.arange(start, min(start + batch, len(data))))
            yield found['image'][~found['bad']] if 'bad' in found else found['image']
            line.update(min(start + batch, len(data)))

    with status.Status('reference', len(data)) as line:
        features = np.concatenate([one for one, _ in extractor.on(grid, batch, len(data))(_some(parts(line)))])
    told = {**made_of(data, said), 'count': len(features)}
    return Reference(moments.of(features), features, len(features), told)


def _some(parts):
    return (part for part in parts if len(part))


def save(path, reference: Reference, network: dict) -> None:
    """network: what the extractor tells of itself."""
    about = {'format': FORMAT, 'network': network, 'reference': reference.told}
    found = reference.moments
    with writer.atomic(path) as file:
        np.savez(
            file,
            mu=found.mean,
            sigma=found.covariance,
            features=reference.features,
            about=np.array(json.dumps(about, ensure_ascii=False)),
        )


def read(path: str, extractor, shape: tuple[int, int, int]) -> Reference:
    """A stored reference, for samples of this shape seen with this network. Raises ValueError for one of another size
    or network, or a damaged one. Of other programs `mu` and `sigma` of Inception features are taken."""
    if not Path(path).is_file():
        raise ValueError(f'--reference={path} is not there: diffusion evaluate stats SOURCE -o {path} makes one')
    data = Path(path).read_bytes()
    mark = hashlib.sha256(data).hexdigest()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            kept = {name: archive[name] for name in ('mu', 'sigma', 'features', 'about') if name in archive.files}
    except (ValueError, EOFError, OSError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is damaged or no .npz ({" ".join(str(error).split())})') from error
    if not {'mu', 'sigma'} <= set(kept):
        raise ValueError(f'{path} holds no mu and sigma: it is no reference')
    wide = extractor.told['features']
    if kept['mu'].shape != (wide,) or kept['sigma'].shape != (wide, wide):
        raise ValueError(
            f'{path} is of {kept["mu"].size} features, {extractor.told["network"]} has {wide}: choose '
            '--features to suit'
        )
    mean, covariance = (np.asarray(kept[name], np.float64) for name in ('mu', 'sigma'))
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f'{path} holds numbers that are not finite')
    if 'about' not in kept:
        return _foreign(path, extractor, mean, covariance, mark)
    about = _about(path, kept)
    told = about['reference']
    if about['network'] != extractor.told:
        different = [key for key in extractor.told if about['network'].get(key) != extractor.told[key]]
        raise ValueError(
            f'{path} was made with {about["network"].get("network")} of another {", ".join(different)}: choose '
            '--features to suit, or make it anew: diffusion evaluate stats'
        )
    if tuple(told['shape']) != tuple(shape):
        sizes = ['x'.join(map(str, one)) for one in (told['shape'], shape)]
        raise ValueError(f'{path} is of pictures {sizes[0]}, the samples are {sizes[1]}: make one with --image-size')
    features = kept.get('features')
    if features is None or features.shape != (told['count'], wide) or not np.isfinite(features).all():
        raise ValueError(f'{path} does not hold the finite features of {told["count"]} pictures that it tells of')
    return Reference(moments.of(features), features, told['count'], told)


def _about(path, kept):
    try:
        about = json.loads(str(kept['about']))
        if about['format'] != FORMAT:
            raise ValueError(f'format {about["format"]}')
        return about | {'network': dict(about['network']), 'reference': dict(about['reference'])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: what it says of itself cannot be read ({error}): make it anew') from error


def _foreign(path, extractor, mean, covariance, mark):
    if extractor.told['network'] == 'classifier' or extractor.told['features'] != inception.FEATURES:
        raise ValueError(f'{path} does not say which network it was made with: --features=inception alone suits it')
    told = {'fingerprint': mark, 'shape': None, 'count': None, 'made': 'by another program, which does not say how'}
    # Moments whose covariance is this one, whatever the count.
    return Reference(moments.Moments(2.0, mean, covariance), None, None, told)
