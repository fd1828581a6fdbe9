"""`diffusion evaluate stats`: the features of a set of pictures, stored as a reference to measure against."""

import dataclasses
import os
from pathlib import Path

from diffusion import usage
from diffusion.data import records, sources
from diffusion.programs import networks, origin, references
from diffusion.runtime import mesh, platform

BATCH = 64


def main(argv: list[str]) -> int:
    """Writes an .npz. Exit status 0, or 2."""
    args = _parsed(argv)
    with usage.checked():
        out = _free(args)
        data, fit = _source(args)
        grid = mesh.make(platform.configure('auto', 0, min(args.batch, len(data))))
        extractor = networks.open(args, data.shape[2], lambda: data, os.path.join(out.parent, networks.CACHE))
    said = {**dataclasses.asdict(fit), 'background': list(fit.background), 'source': args.source, 'split': args.split}
    with usage.checked():
        reference = references.of_data(data, extractor, grid, args.batch, said)
        if reference.count < 2:
            raise ValueError(f'{args.source} holds {reference.count} pictures that can be read: at least 2')
    references.save(out, reference, extractor.told)
    left = len(data) - reference.count
    print(f'{reference.count:,} pictures{f", {left:,} that cannot be read left out" * bool(left)}, written to {out}')
    return 0


def _parsed(argv):
    parser = usage.Parser('evaluate stats', ' '.join(__doc__.split(': ', 1)[1].split()))
    origin.add_flags(parser)
    parser.add_argument('-o', '--out', required=True, metavar='NPZ', help='the file to write')
    networks.add_flags(parser)
    parser.add_argument('--batch', type=int, default=BATCH, metavar='N', help=f'pictures a call (default: {BATCH})')
    parser.add_argument('--overwrite', action='store_true', help='replace a file that is there')
    args, overrides = parser.parse(argv)
    if overrides:
        raise usage.UsageError('--config.* belongs to a run: name a SOURCE and its flags')
    return args


def _free(args) -> Path:
    path = Path(args.out)
    if path.suffix != '.npz':
        raise ValueError(f'--out={path}: a name that ends in .npz')
    if path.exists() and not args.overwrite:
        raise ValueError(f'{path} is there already: add --overwrite, or name another')
    if args.batch < 1:
        raise ValueError(f'--batch={args.batch}: at least 1')
    return path


def _source(args):
    stored, fit = origin.opened(args), origin.fit(args)
    shape, dtype = records.look(stored, fit)
    if dtype != 'uint8':
        raise ValueError(f'{args.source} holds numbers ({dtype}): references are of pictures of 8 bits')
    opened = sources.Once(lambda: records.build(stored, fit, shape, dtype))
    return sources.Source(shape, stored.classes, stored.captioned, opened), fit
