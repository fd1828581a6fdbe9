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
from diffusion.programs import layouts
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
            return read(str(path), extractor, data.shape, grid, batch)
        except ValueError as error:
            print(f'{error}: computed again', file=sys.stderr)
    found = of_data(data, extractor, grid, batch, said)
    save(path, found, extractor.told)
    return found


def of_data(data: sources.Source, extractor, grid, batch: int, said: dict) -> Reference:
    """Of every example of a set that can be read. said: how the pictures were made, JSON values."""

    def parts(line):
        for ids, images in data.parts(batch):
            yield images
            line.update(int(ids[-1]) + 1)

    with status.Status('reference', len(data)) as line:
        features = np.concatenate([one for one, _ in extractor.on(grid, batch, len(data))(parts(line))])
    told = {**made_of(data, said), 'count': len(features)}
    return Reference(moments.of(features), features, len(features), told)


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


def read(path: str, extractor, shape: tuple[int, int, int], grid, batch: int) -> Reference:
    """A stored reference, for samples of this shape seen with this network. Raises ValueError for one of another size
    or network, or a damaged one. Of other programs the layouts of `layouts` are read; pictures in them are seen now."""
    if not Path(path).is_file():
        raise ValueError(f'--reference={path} is not there: diffusion evaluate stats SOURCE -o {path} makes one')
    data = Path(path).read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            names = ('features', 'about', *layouts.NAMES)
            found = {name: archive[name] for name in names if name in archive.files}
    except (ValueError, EOFError, OSError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is damaged or no .npz ({" ".join(str(error).split())})') from error
    if 'about' not in found:
        return _foreign(path, found, extractor, shape, grid, batch, hashlib.sha256(data).hexdigest())
    about = _about(path, found)
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
    features, wanted = found.get('features'), (told['count'], extractor.told['features'])
    if features is None or features.shape != wanted or not np.isfinite(features).all():
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


def _foreign(path, arrays, extractor, shape, grid, batch, mark):
    def see(parts):
        with status.Status('reference', len(arrays['arr_0'])):
            return list(extractor.on(grid, batch, len(arrays['arr_0']))(parts))

    try:
        layout = layouts.describe(arrays)
        kept, features, count = layouts.read(arrays, extractor.told, shape, see)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    told = {'fingerprint': mark, 'layout': layout, 'count': count, 'made': 'by another program, which does not say how'}
    return Reference(kept, features, count, told)
