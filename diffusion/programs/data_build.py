"""`diffusion data build`: decode and fit every picture of a set once, and store them as shards to train from."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import math
import re
from pathlib import Path

import numpy as np

from diffusion import usage
from diffusion.data import pictures, shards, split, stock
from diffusion.programs import origin, storing, survey
from diffusion.runtime import status, writer

FORMAT = 1  # of a build: another one writes other bytes
LIMIT = 0.01  # share of unreadable images above which nothing is stored
SHARD_BYTES = 2**28  # of pixels; PNG makes about half of it
TRAIN, VALIDATION = 'train', 'validation'


def main(argv: list[str]) -> int:
    """Exit status 0 when the set is there, 1 where too many images are unreadable or it is damaged, or 2."""
    args = _parsed(argv)
    with usage.checked():
        fit = origin.fit(args)
        if args.source.startswith(origin.TFDS):
            print(f'prepared at {stock.prepare(args.source.removeprefix(origin.TFDS), args.data_dir)}', flush=True)
            if not args.dest:
                return 0
        folder = _folder(args)
        source = origin.opened(args)
        plan = _plan(args, source, fit, folder)
        manifest = storing.finished(folder, plan)
        journal = None if manifest else storing.Journal(folder, plan)
    if manifest:
        return _report(folder, manifest, again=True)
    with contextlib.closing(journal):
        return _build(journal, source, fit, plan)


def _build(journal, source, fit, plan):
    found = survey.taken(journal, source, fit)
    if found.bad:
        _name_bad(journal.folder / storing.BAD, source, found.bad)
    if len(found.bad) > LIMIT * source.length:
        journal.forget()
        print(f'more than {LIMIT:.0%} are unreadable: nothing is stored; mend or remove them, and build again')
        return 1
    with usage.checked():
        layout = _layout(plan['name'], source, found)
        chosen = split.by_content(found.contents, _validation(plan['val'], found.readable))
    parts = {name: _parts(ids, plan['shards'], found, len(chosen.train)) for name, ids in _sides(chosen).items()}
    with status.Status('store', sum(map(len, _sides(chosen).values()))) as line:
        told = survey.Told(line)
        encode = functools.partial(_encoded, source, fit, shards.Encoder(layout), found.contents)
        stored = {name: storing.store(journal, layout, name, part, encode, told) for name, part in parts.items()}
    manifest = _manifest(plan, layout, source, found, chosen, stored)
    description = f'{len(chosen.train) + len(chosen.validation)} examples, stored by diffusion data build.'
    journal.finish(manifest, lambda aside: shards.describe(aside, layout, stored, description))
    return _report(journal.folder, manifest)


def _name_bad(path, source, bad):
    lines = [{'index': index, 'name': source.name(index), 'reason': reason} for index, reason in bad.items()]
    with writer.atomic(path) as file:
        file.write(''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in lines).encode())
    first = f'{lines[0]["name"]}: {lines[0]["reason"]}'
    print(f'{len(bad):,} of {source.length:,} images cannot be read ({first}), all named in {path}')


def _layout(name, source, found) -> shards.Layout:
    whole = set(found.kinds) - {()}
    kinds = {(dtype, channels) for dtype, _, _, channels in whole}
    if not kinds:
        raise ValueError('the set holds no image')
    if len(kinds) > 1:
        said = ', '.join(f'{dtype} x {channels}' for dtype, channels in sorted(kinds))
        raise ValueError(f'its images are of several kinds: {said}; give --channels')
    ((dtype, channels),) = kinds
    sizes = {(height, width) for _, height, width, _ in whole}
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    layout = shards.Layout(name, (height, width, channels), dtype, source.classes, source.captioned)
    if height is None and not layout.is_png:
        raise ValueError('its arrays differ in size: give --image-size=PIXELS')
    return layout


def _validation(wanted: str, readable: int) -> int:
    """How many examples a number or a share of them is. Raises ValueError."""
    try:
        number = float(wanted)
    except ValueError:
        number = -1.0
    if number < 0 or (number > 1 and not number.is_integer()):
        raise ValueError(f'--val={wanted}: a number of examples, or a share of them such as 0.05')
    # '1' is one example, '1.0' would be all of them.
    return round(number * readable) if '.' in wanted else int(number)


def _sides(chosen: split.Split) -> dict[str, list[int]]:
    return {TRAIN: chosen.train, **({VALIDATION: chosen.validation} if chosen.validation else {})}


def _parts(ids, asked, found, train) -> list[list[int]]:
    """The examples of each shard. The shards of a split are equally long but for one."""
    kinds = [found.kinds[index] for index in ids]
    size = sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, *shape in kinds)
    wanted = round(asked * len(ids) / train) if asked else math.ceil(size / SHARD_BYTES)
    number = min(max(wanted, 1), len(ids))
    return [part.tolist() for part in np.array_split(np.array(ids, np.int64), number)]


def _encoded(source, fit, encoder, contents, indices: list[int]) -> list[bytes]:
    records = []
    for index, example in zip(indices, source.read(np.array(indices, np.int64))):
        try:
            image = pictures.decode(example.image, fit)
            same = shards.content(image) == contents[index]
        except pictures.Unreadable:
            same = False
        if not same:
            raise usage.Fault(f'{example.name} has changed while the set was built: remove the folder and build again')
        records.append(encoder(example.name, image, example.label, example.caption))
    return records


def _manifest(plan, layout, source, found, chosen, stored) -> dict:
    def side(name, ids):
        counts = np.bincount([found.labels[index] for index in ids if found.labels[index] >= 0])
        return {
            'examples': len(ids),
            'classes': {source.classes[label]: int(count) for label, count in enumerate(counts)},
            'shards': [dataclasses.asdict(part) for part in stored[name]],
        }

    return {
        'plan': plan,
        'shape': list(layout.shape),
        'dtype': layout.dtype,
        'classes': list(layout.classes),
        'captioned': layout.captioned,
        'bad': len(found.bad),
        'copies': {'groups': chosen.groups, 'examples': chosen.copies, 'examples_in_validation': chosen.together},
        'splits': {name: side(name, ids) for name, ids in _sides(chosen).items()},
    }


def _report(folder, manifest, again=False) -> int:
    if again and (wrong := storing.problems(folder, manifest)):
        print('\n'.join(wrong))
        print(f'{folder} is not what was built: remove it and build again')
        return 1
    for name, side in manifest['splits'].items():
        size = sum(part['size'] for part in side['shards'])
        print(f'{name:<12} {side["examples"]:>10,} examples in {len(side["shards"])} shards, {size:,} bytes')
    copies = manifest['copies']
    if copies['groups']:
        moved = f'; none is on both sides, {copies["examples_in_validation"]} of them in validation'
        said = moved if VALIDATION in manifest['splits'] else ''
        print(f'{copies["groups"]:,} pictures are there more than once, as {copies["examples"]:,} examples{said}')
    elif VALIDATION in manifest['splits']:
        print('no picture is there twice, so none is on both sides')
    print(f'{"built already, every hash as it was" if again else "built"}: {folder}')
    return 0


def _plan(args, source, fit, folder) -> dict:
    """Everything that the bytes of a set follow from: JSON values."""
    name = args.name or _name(folder)
    if not re.fullmatch(r'[a-zA-Z][a-zA-Z0-9_]*', name):
        raise ValueError(f'--name={name}: letters, digits and _, as TFDS wants it')
    if args.shards < 0:
        raise ValueError(f'--shards={args.shards}: at least 1')
    _validation(args.val, 1)
    versions = {of: importlib.metadata.version(of) for of in ('array_record', 'numpy', 'pillow', 'tensorflow-datasets')}
    return {
        'format': FORMAT,
        'name': name,
        'source': {'fingerprint': source.fingerprint, 'examples': source.length},
        'fit': dataclasses.asdict(fit),
        'val': args.val,
        'shards': args.shards,
        'versions': versions,
    }


def _name(folder: Path) -> str:
    """Of the folder, or of the one above where it is that of a version, NAME/1.0.0."""
    parts = [part for part in folder.absolute().parts if not re.fullmatch(r'[\d.]+', part)]
    word = re.sub(r'\W+', '_', parts[-1] if parts else '').strip('_').lower()
    return word if re.match('[a-z]', word) else f'set_{word}'.rstrip('_')


def _folder(args) -> Path:
    if not args.dest:
        raise ValueError('name the folder to build in: diffusion data build SOURCE DEST')
    if '://' in args.dest:
        raise ValueError(f'{args.dest} is not a local folder: build in one, then copy it there')
    return Path(args.dest)


def _parsed(argv):
    parser = usage.Parser('data build', __doc__.split(': ', 1)[1])
    origin.add_flags(parser)
    parser.add_argument('dest', nargs='?', default='', metavar='DEST', help='a folder that is not there yet')
    parser.add_argument('--val', default='0', metavar='N', help='examples for validation, or a share of them, as 0.05')
    parser.add_argument('--shards', type=int, default=0, metavar='N', help='of train (default: one for 256 MiB)')
    parser.add_argument('--name', default='', metavar='NAME', help="of the set for TFDS (default: the folder's)")
    args, overrides = parser.parse(argv)
    if overrides:
        raise usage.UsageError('a set is built from a SOURCE, not from a config: leave out --config.*')
    return args
