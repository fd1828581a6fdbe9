"""The set that a call of `diffusion data` names, and what is made of its pictures."""

import argparse
import dataclasses

from diffusion.data import entries, formats, pictures, records, stock

SIZES = '--image-size=PIXELS'


def add_flags(parser: argparse.ArgumentParser, needed: bool = True) -> None:
    """needed: whether a SOURCE must be named."""
    how = {} if needed else {'nargs': '?', 'default': ''}
    parser.add_argument('source', **how, metavar='SOURCE', help='a folder, file or URL of pictures, or tfds:NAME')
    parser.add_argument('--split', default='train', metavar='NAME', help='of a TFDS set (default: train)')
    parser.add_argument('--data-dir', default='', metavar='DIR', help="where a TFDS set lies (default: TFDS's own)")
    # Underscores too: these are keys of a config.
    fit = pictures.Fit()
    parser.add_argument('--image-size', '--image_size', type=int, default=0, metavar='N', help='pixels of a side')
    parser.add_argument('--width', type=int, default=0, metavar='N', help='where it is not the height')
    parser.add_argument('--crop', default=fit.crop, metavar='NAME', help=f'of {", ".join(pictures.CROPS)}')
    parser.add_argument('--filter', default=fit.filter, metavar='NAME', help='of Pillow (default: bicubic)')
    parser.add_argument('--channels', type=int, default=0, metavar='N', help='1 grey, 3 RGB, 4 RGBA (default: 3)')
    parser.add_argument('--background', default='', metavar='R,G,B', help='below what is transparent (default: white)')


def opened(source: str, split: str = 'train', data_dir: str = '') -> entries.Entries:
    """Raises ValueError, OSError."""
    if source.startswith(stock.PREFIX):
        return stock.opened(source.removeprefix(stock.PREFIX), split, data_dir)
    return formats.open(source)


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
    options = {key: value for key, value in data.items() if key != 'name'}
    if data['name'] == 'images':
        known = {field.name for field in dataclasses.fields(pictures.Fit)}
        return data['path'], formats.open(data['path']), pictures.Fit(**{k: options[k] for k in known & set(options)})
    if data['name'] == 'tfds':
        found = stock.opened(options['dataset'], options['split'], options['data_dir'])
        return f'{stock.PREFIX}{options["dataset"]}', found, pictures.Fit(options['image_size'])
    if data['name'] == 'emoji':
        dataset = f'emoji/{options["subset"]}_{options["image_size"]}'
        records.prepare(dataset, options['data_dir'])
        return f'{stock.PREFIX}{dataset}', stock.opened(dataset, data_dir=options['data_dir']), pictures.Fit()
    raise ValueError(f'config.data is {data["name"]}, which holds no pictures')
