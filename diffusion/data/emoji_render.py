"""Draws the bundled emoji set: `python -m diffusion.data.emoji_render OUT.zip [--font=…
--names=…]`.

The pictures come from Noto Color Emoji, the names from Unicode's emoji-test.txt; on Debian the
packages fonts-noto-color-emoji and unicode-data install both, with the licences that go into the
archive.
"""

import argparse
import dataclasses
import io
import json
import pathlib
import sys
import zipfile

import PIL.features
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

SIZE = 32
COLUMNS = 48
# The font holds bitmaps of this one size; a picture fills at most 128 x 128 pixels of it.
FONT_SIZE = 109
INK = 128
SKIN_TONES = range(0x1F3FB, 0x1F400)


@dataclasses.dataclass(frozen=True)
class Emoji:
    """One line of emoji-test.txt; `id` is its code points, such as '1f636-200d-1f32b-fe0f'."""

    id: str
    name: str
    group: str
    subgroup: str

    @property
    def text(self) -> str:
        return ''.join(chr(int(point, 16)) for point in self.id.split('-'))


def read_names(path: pathlib.Path) -> list[Emoji]:
    """Every fully-qualified emoji of an emoji-test.txt that has no skin tone, in the file's order."""
    found = []
    group = subgroup = ''
    for line in path.read_text(encoding='utf-8').splitlines():
        if line.startswith('# group:'):
            group = line.split(':', 1)[1].strip()
        elif line.startswith('# subgroup:'):
            subgroup = line.split(':', 1)[1].strip()
        elif '; fully-qualified' in line:
            points = line.split(';', 1)[0].split()
            # The comment reads '# <picture> E<version> <name>'.
            name = line.split('#', 1)[1].split(maxsplit=2)[2].strip()
            if not any(int(point, 16) in SKIN_TONES for point in points):
                found.append(Emoji('-'.join(points).lower(), name, group, subgroup))
    if not found:
        raise ValueError(f'{path} names no emoji: give Unicode’s emoji-test.txt with --names')
    return found


def draw(font: PIL.ImageFont.FreeTypeFont, text: str) -> PIL.Image.Image | None:
    """The picture of `text`, RGB [SIZE, SIZE] on white, or None if the font has no single one.

    All pictures share one scale, so a face is as large beside a cat as the font's designers drew
    it; each is centred by the box around its ink.
    """
    if font.getlength(text) != font.getlength('\U0001f600'):
        return None  # A sequence that the font cannot join is drawn as several pictures in a row.
    left, top, right, bottom = font.getbbox(text)
    canvas = PIL.Image.new('RGBA', (right + INK, bottom + INK))
    PIL.ImageDraw.Draw(canvas).text((0, 0), text, font=font, embedded_color=True)
    # Shadows fade out over a few pixels; a picture is centred by what the eye sees.
    ink = canvas.getchannel('A').point(lambda alpha: 255 * (alpha > 8)).getbbox()
    if ink is None:
        return None
    left, top, right, bottom = ink
    if right - left > INK or bottom - top > INK:
        raise ValueError(f'the picture of {text!r} is {right - left} x {bottom - top}, over {INK}')
    x, y = (left + right - INK) // 2, (top + bottom - INK) // 2
    square = canvas.transform((INK, INK), PIL.Image.Transform.AFFINE, (1, 0, x, 0, 1, y), fillcolor=(0, 0, 0, 0))
    white = PIL.Image.new('RGBA', square.size, 'white')
    picture = PIL.Image.alpha_composite(white, square).convert('RGB')
    return picture.resize((SIZE, SIZE), PIL.Image.Resampling.BICUBIC)


def sheet(pictures: list[PIL.Image.Image]) -> bytes:
    """Pictures side by side, COLUMNS in a row, as one lossless WebP."""
    rows = -(-len(pictures) // COLUMNS)
    whole = PIL.Image.new('RGB', (COLUMNS * SIZE, rows * SIZE), 'white')
    for i, picture in enumerate(pictures):
        whole.paste(picture, (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
    out = io.BytesIO()
    whole.save(out, format='WEBP', lossless=True, quality=100, method=6)
    return out.getvalue()


def write(path: pathlib.Path, emoji: list[Emoji], pixels: bytes, licences: dict[str, str]) -> None:
    """Writes the archive: the same bytes for the same content (and the same Pillow and zlib)."""
    table = {
        'size': SIZE,
        'columns': COLUMNS,
        'fields': [field.name for field in dataclasses.fields(Emoji)],
        'emoji': [dataclasses.astuple(one) for one in emoji],
    }
    members = {
        'emoji.json': json.dumps(table, ensure_ascii=False, separators=(',', ':')).encode(),
        'emoji.webp': pixels,
        **{name: text.encode() for name, text in licences.items()},
    }
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content, compresslevel=9)


def font_licence(text: str) -> str:
    """What the archive says of its pictures: the SIL licence of a Debian copyright file,
    unindented."""
    # The licence is named in the fonts' paragraph and given in full below the same heading.
    licence = text.rpartition('License:   SIL-1.1')[2]
    if 'SIL OPEN FONT LICENSE' not in licence:
        raise ValueError('the font’s copyright file holds no SIL Open Font License')
    lines = [line.strip() for line in licence.strip().splitlines()]
    body = '\n'.join('' if line == '.' else line for line in lines)
    return (
        'The pictures in emoji.webp are drawn with the font Noto Color Emoji, reduced in size.\n'
        'https://github.com/googlefonts/noto-emoji\n\n'
        'Copyright 2013-2017 Google Inc., Arjen Nienhuis <a.g.nienhuis@gmail.com>\n\n'
        f'{body}\n'
    )


def unicode_licence(text: str) -> str:
    """Unicode's notice of a Debian copyright file, told what was changed as the notice asks."""
    _, heading, licence = text.partition('EXHIBIT 1')
    if not heading:
        raise ValueError('the names’ copyright file holds no Unicode licence')
    return (
        'The names, groups and subgroups in emoji.json are an extract, in another format, of\n'
        'emoji-test.txt (© 2022 Unicode®, Inc.; https://www.unicode.org/terms_of_use.html).\n\n'
        f'{heading}{licence.rstrip()}\n'
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m diffusion.data.emoji_render', description=__doc__)
    parser.add_argument('out', type=pathlib.Path, metavar='OUT')
    for flag, default in {
        'font': '/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf',
        'names': '/usr/share/unicode/emoji/emoji-test.txt',
        'font-licence': '/usr/share/doc/fonts-noto-color-emoji/copyright',
        'names-licence': '/usr/share/doc/unicode-data/copyright',
    }.items():
        parser.add_argument(f'--{flag}', type=pathlib.Path, default=pathlib.Path(default))
    flags = parser.parse_args(arguments)
    if not PIL.features.check('raqm'):
        print('this Pillow has no libraqm, which joins emoji sequences: install a wheel', file=sys.stderr)
        return 2
    try:
        emoji = read_names(flags.names)
        font = PIL.ImageFont.truetype(str(flags.font), FONT_SIZE, layout_engine=PIL.ImageFont.Layout.RAQM)
        licences = {
            'LICENSE.font.txt': font_licence(flags.font_licence.read_text(encoding='utf-8')),
            'LICENSE.unicode.txt': unicode_licence(flags.names_licence.read_text(encoding='utf-8')),
        }
    except (OSError, ValueError) as error:
        print(f'{error}', file=sys.stderr)
        return 2
    pictures = [draw(font, one.text) for one in emoji]
    kept = [(one, picture) for one, picture in zip(emoji, pictures, strict=True) if picture]
    write(flags.out, [one for one, _ in kept], sheet([picture for _, picture in kept]), licences)
    print(f'{len(kept)} emoji, {len(emoji) - len(kept)} without a picture, {flags.out.stat().st_size} bytes')
    return 0


if __name__ == '__main__':
    sys.exit(main())
