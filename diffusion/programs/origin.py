"""The set that a call of `diffusion data` names, and what is made of its pictures."""

import argparse
import dataclasses

from diffusion.data import entries, formats, pictures, prepared, stock

TFDS = 'tfds:'


def add_flags(parser: argparse.ArgumentParser, needed: bool = True) -> None:
    """needed: whether a SOURCE must be named."""
    how = {} if needed else {'nargs': '?', 'default': ''}
    parser.add_argument('source', **how, metavar='SOURCE', help='a folder, file or URL of pictures, or tfds:NAME')
    parser.add_argument('--split', default='', metavar='NAME', help='of a set that has several')
    parser.add_argument('--label', default='auto', metavar='NAME', help='the column or feature; none: no labels')
    parser.add_argument('--caption', default='auto', metavar='NAME', help='the column or feature; none: no captions')
    parser.add_argument('--data-dir', default='', metavar='DIR', help="where a TFDS set lies (default: TFDS's own)")
    # With underscores too, as the keys of a config are written.
    fit = pictures.Fit()
    parser.add_argument('--image-size', '--image_size', type=int, default=0, metavar='N', help='pixels of a side')
    parser.add_argument('--width', type=int, default=0, metavar='N', help='where it is not the height')
    parser.add_argument('--crop', default=fit.crop, metavar='NAME', help=f'of {", ".join(pictures.CROPS)}')
    parser.add_argument('--filter', default=fit.filter, metavar='NAME', help='of Pillow (default: bicubic)')
    parser.add_argument('--channels', type=int, default=0, metavar='N', help='1 grey, 3 RGB, 4 RGBA (default: 3)')
    parser.add_argument('--background', default='', metavar='R,G,B', help='below what is transparent (default: white)')


def opened(args: argparse.Namespace) -> entries.Entries:
    """Raises ValueError, OSError."""
    if args.data_dir:
        if not args.source.startswith(TFDS):
            raise ValueError(f'--data-dir is for sets of TFDS, not for {args.source}: leave it out')
        name = args.source.removeprefix(TFDS)
        return prepared.open_named(name, args.split or 'train', args.data_dir, args.label, args.caption)
    return formats.open(args.source, args.split, args.label, args.caption)


def fit(args: argparse.Namespace) -> pictures.Fit:
    """Raises ValueError."""
    colour = pictures.Fit().background
    if args.background:
        try:
            colour = tuple(int(part) for part in args.background.split(','))
        except ValueError as error:
            raise ValueError(f'--background={args.background}: three numbers, as 255,255,255') from error
    return pictures.Fit(args.image_size, args.crop, args.filter, colour, args.channels, args.width)


def of_config(data: dict) -> tuple[str, entries.Entries, pictures.Fit]:
    """The set of a config's section `data`, what it is called, and what is made of its pictures. Raises ValueError."""
    if data['name'] == 'images':
        known = {field.name for field in dataclasses.fields(pictures.Fit)} & set(data)
        fitted = pictures.Fit(**{key: tuple(data[key]) if key == 'background' else data[key] for key in known})
        return data['path'], formats.open(data['path'], data['split'], data['label'], data['caption']), fitted
    if data['name'] == 'tfds':
        found = prepared.open_named(data['dataset'], data['split'], data['data_dir'])
        return f'{TFDS}{data["dataset"]}', found, pictures.Fit(data['image_size'], background=(), oriented=False)
    if data['name'] == 'emoji':
        dataset = f'emoji/{data["subset"]}_{data["image_size"]}'
        stock.prepare(dataset, data['data_dir'])
        return f'{TFDS}{dataset}', prepared.open_named(dataset, 'train', data['data_dir']), pictures.Fit()
    raise ValueError(f'config.data is {data["name"]}, which holds no pictures')
