"""`diffusion data check`: what a set holds, what of it cannot be read, what the crop cuts; as text and as a page."""

import functools
import io
from pathlib import Path

import numpy as np
import PIL.Image

from diffusion import build, usage
from diffusion.data import buckets, entries, pictures, shards
from diffusion.programs import check_page, findings, origin, pictured, storing
from diffusion.runtime import pictures as sheets
from diffusion.runtime import status, writer

LIMIT = 0.01  # share of unreadable images that a training bears
SHOWN = 48  # pictures on the preview
TOLD = 32  # examples whose conditions are shown
SIDE = 96  # pixels of a preview where no --image-size is given


def main(argv: list[str]) -> int:
    """Exit status 0 for a set that can be trained on, 1 for one that cannot, or 2."""
    args, overrides = _parsed(argv)
    with usage.checked():
        name, source, fit, shapes = _named(args, overrides)
        _check_out(args.out)
        conditions = _conditions(args, overrides)
    tally = findings.Tally(source.classes, source.captioned, shapes)
    with status.Status('check', source.length) as line:
        look = functools.partial(_looks, source, fit)
        for looks in storing.in_order(look, storing.blocks(list(range(source.length)), storing.BLOCK)):
            for one in looks:
                tally.add(one)
            line.update(tally.examples)
    wrong = _wrong(tally)
    verdict = (not wrong, '; '.join(wrong) or _good(tally))
    facts = [f'{source.length:,} examples, fingerprint {source.fingerprint}', _said(fit, shapes)]
    print('\n'.join([name, *facts, '', *tally.lines(), '', f'verdict: {verdict[1]}']))
    if conditions is not None:
        path = Path(args.out or 'out') / 'conditioning.png'
        sheets.save(path, conditions)
        print(f'conditions of a training and the pictures that they are of: {path}')
    if args.out:
        _write(Path(args.out), name, facts, verdict, _shown(source, fit), tally)
    return 1 if wrong else 0


def _named(args, overrides) -> tuple[str, entries.Entries, pictures.Fit, tuple[int, int, int] | None]:
    """What a page calls the set, the set, what is made of its pictures, and the `Tally.shapes`."""
    if bool(args.source) == bool(args.config):
        raise ValueError('name one SOURCE, or --config=FILE for the set of a config')
    if args.config:
        data = build.resolve(args.config, overrides)['data']
        return *origin.of_config(data), _shapes(data.get('buckets', 0), data.get('image_size'), data.get('multiple'))
    if overrides:
        raise ValueError('--config.* without --config=FILE: leave it out')
    return args.source, origin.opened(args), origin.fit(args), _shapes(args.buckets, args.image_size, args.multiple)


def _conditions(args, overrides) -> np.ndarray | None:
    """What a training of the config would tell its network, beside the pictures that it is of; None where it tells none
    (or none was named). Raises ValueError."""
    config = build.resolve(args.config, overrides) if args.config else {}
    if 'conditioning' not in config:
        return None
    data = build.source(config)
    run = build.experiment(config, build.facts(config, data))
    given, _ = pictured.of_examples(run, data, np.arange(TOLD))
    return pictured.sheet(run, given.pictures, given.images)


def _shapes(count, side, multiple):
    if not count:
        return None
    buckets.check(count, side, multiple)
    return count, side, multiple


def _looks(source, fit, indices) -> list[findings.Look]:
    return [_look(example, fit) for example in source.read(np.array(indices, np.int64))]


def _look(example, fit) -> findings.Look:
    known = findings.Look(example.name, example.label, example.caption)
    try:
        measured = pictures.measure(example.image, fit.oriented)
        # At its own size: copies are the same picture, not two that a small size makes alike.
        image = pictures.decode(example.image, pictures.Fit(background=fit.background, channels=fit.channels))
        content = shards.content(image)
        if fit.image_size and fit.crop == 'none':
            pictures.decode(example.image, fit)
    except (pictures.Unreadable, pictures.Misfit) as error:
        return findings.Look(example.name, example.label, example.caption, str(error))
    cut = pictures.cut(measured.width, measured.height, fit)
    size = (measured.height, measured.width)
    return findings.Look(known.name, known.label, known.caption, '', content, _stored(example, measured), size, cut)


def _stored(example, measured):
    if isinstance(example.image, np.ndarray):
        return f'array {measured.mode}'
    with PIL.Image.open(io.BytesIO(example.image), formats=pictures.FORMATS) as opened:
        return f'{opened.format} {measured.mode}'


def _wrong(tally) -> list[str]:
    found = []
    if not tally.readable:
        found.append('no image of it can be read')
    elif len(tally.bad) > LIMIT * tally.examples:
        found.append(f'{len(tally.bad):,} images cannot be read, more than {LIMIT:.0%}')
    empty = [name for label, name in enumerate(tally.classes) if not tally.labels[label]]
    if empty:
        found.append(f'{len(empty):,} classes have no example: {", ".join(empty[:5])}')
    if tally.captioned and tally.uncaptioned == tally.examples:
        found.append('every caption is empty')
    return found


def _good(tally) -> str:
    notes = [f'{len(tally.bad):,} unreadable, which a training replaces'] if tally.bad else []
    notes += [f'{tally.extra:,} copies'] if tally.extra else []
    return f'can be trained on{": " if notes else ""}{", ".join(notes)}'


def _said(fit, shapes) -> str:
    if shapes:
        return f'fitted to at most {shapes[0]} sizes of about {shapes[1]}² pixels, filter {fit.filter}'
    if not fit.image_size:
        return 'as stored: --image-size=N tells what a crop would cut'
    return f'fitted to {fit.size[0]} x {fit.size[1]} by crop {fit.crop}, filter {fit.filter}'


def _shown(source, fit) -> list[tuple[np.ndarray, str]]:
    """Pictures spread evenly over the set, as uint8 [H, W, C] of one size, and what is written below each."""
    if not fit.image_size:
        fit = pictures.Fit(SIDE, 'pad', fit.filter, fit.background, fit.channels)
    indices = np.unique(np.linspace(0, source.length - 1, min(SHOWN, source.length)).round().astype(np.int64))
    found = []
    for example in source.read(indices):
        try:
            image = _visible(pictures.decode(example.image, fit))
        except (pictures.Unreadable, pictures.Misfit):
            continue
        label = source.classes[example.label] if source.classes and example.label >= 0 else ''
        found.append((image, example.caption or label or example.name))
    return found


def _visible(image) -> np.ndarray:
    """Any image as grey or RGB of eight bits: of more channels the first three, of floats their range."""
    image = image[..., :3] if image.shape[-1] > 2 else image[..., :1]
    if image.dtype == np.uint8:
        return image
    low, high = image.min(), image.max()
    return np.round((image - low) / max(high - low, 1e-12) * 255).astype(np.uint8)


def _check_out(out) -> None:
    if out and ('://' in out or (Path(out).exists() and not Path(out).is_dir())):
        raise ValueError(f'--out={out} is not a local folder')


def _write(folder, name, facts, verdict, shown, tally) -> None:
    if shown:
        images = np.stack([np.broadcast_to(image, (*image.shape[:2], 3)) for image, _ in shown])
        sheets.save(folder / 'preview.png', sheets.sheet(images, [label.lstrip('*') for _, label in shown]))
    drawn = [(shards.png(image), label) for image, label in shown]
    with writer.atomic(folder / 'check.html') as file:
        file.write(check_page.render(name, facts, verdict, drawn, tally.tables()).encode())
    print(f'written to {folder / "check.html"}{" and preview.png" if shown else ""}')


def _parsed(argv):
    parser = usage.Parser('data check', __doc__.split(': ', 1)[1])
    origin.add_flags(parser, needed=False)
    parser.add_argument('--config', metavar='FILE', help='check the set of a config instead')
    parser.add_argument('--buckets', type=int, default=0, metavar='N', help='cut to N sizes instead of squares')
    parser.add_argument('--multiple', type=int, default=16, metavar='N', help='which divides the sides of buckets')
    parser.add_argument('--out', metavar='DIR', help='where check.html and preview.png go (default: nowhere)')
    return parser.parse(argv)
