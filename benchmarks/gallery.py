"""The gallery of docs/editing.md: runs its commands with the README's emoji run and writes down what they printed.

    python benchmarks/gallery.py --workdir=runs/emoji --write=docs/editing.md

Everything between the page's two `gallery` marks is replaced, the pictures are copied to docs/images/. About ten
minutes on two CPU cores. Without --write the section is printed.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
OUT = Path('out/gallery')
MARKS = '<!-- gallery -->\n', '<!-- end of gallery -->\n'

# Title, name of the picture, command after `diffusion` ({run} and {out} filled in), the sheet it leaves.
SCENES = [
    (
        'The pictures that are edited, and a mask',
        None,
        'sample --workdir={run} --prompt="grinning face" --seeds=1 --out={out}/face',
        'grid.png',
    ),
    (None, None, 'sample --workdir={run} --prompt="cat face" --seeds=1 --out={out}/cat', 'grid.png'),
    (
        'Inpaint: another mouth, with a caption of the training set',
        'mouth',
        'edit inpaint --workdir={run} --image={out}/face/1.png --mask={out}/mouth.png --prompt="crying face" '
        '--out={out}/mouth',
        'sheet.png',
    ),
    (
        'Inpaint: another mouth, with words that no caption of the training set combines',
        'mouth_unseen',
        'edit inpaint --workdir={run} --image={out}/cat/1.png --mask={out}/mouth.png --prompt="pouting cat with halo" '
        '--out={out}/mouth_unseen',
        'sheet.png',
    ),
    (
        'Outpaint: the lower half of a face, from its upper one',
        'outpaint',
        'edit outpaint --workdir={run} --image={out}/upper.png --bottom=8 --prompt="grinning face" '
        '--out={out}/outpaint',
        'sheet.png',
    ),
    (
        'Outpaint with an unseen prompt',
        'outpaint_unseen',
        'edit outpaint --workdir={run} --image={out}/upper.png --bottom=8 --prompt="grinning dog" '
        '--out={out}/outpaint_unseen',
        'sheet.png',
    ),
    *(
        (
            f'Variations at strength {strength}',
            f'variation_{i}',
            f'edit variation --workdir={{run}} --image={{out}}/face/1.png --strength={strength} '
            f'--prompt="smiling face with sunglasses" --out={{out}}/variation_{i}',
            'sheet.png',
        )
        for i, strength in enumerate((0.4, 0.6, 0.8))
    ),
    (
        'A variation with an unseen prompt',
        'variation_unseen',
        'edit variation --workdir={run} --image={out}/cat/1.png --strength=0.6 --prompt="cat with sunglasses" '
        '--out={out}/variation_unseen',
        'sheet.png',
    ),
    (
        'Colourise',
        'colorize',
        'edit colorize --workdir={run} --image={out}/cat/1.png --prompt="cat face" --out={out}/colorize',
        'sheet.png',
    ),
    (
        'Colourise with an unseen prompt',
        'colorize_unseen',
        'edit colorize --workdir={run} --image={out}/cat/1.png --prompt="cat with sunglasses" '
        '--out={out}/colorize_unseen',
        'sheet.png',
    ),
    (
        'Upscale: from 8 × 8 pixels',
        'upscale',
        'edit upscale --workdir={run} --image={out}/small.png --prompt="grinning face" --out={out}/upscale',
        'sheet.png',
    ),
    (
        'Upscale with an unseen prompt',
        'upscale_unseen',
        'edit upscale --workdir={run} --image={out}/small.png --prompt="grinning dog" --out={out}/upscale_unseen',
        'sheet.png',
    ),
    (
        'Interpolate',
        'interpolate',
        'edit interpolate --workdir={run} --image={out}/face/1.png --image={out}/cat/1.png --num=8 '
        '--out={out}/interpolate',
        'grid.png',
    ),
    (
        'Interpolate under an unseen prompt',
        'interpolate_unseen',
        'edit interpolate --workdir={run} --image={out}/face/1.png --image={out}/cat/1.png --num=8 '
        '--prompt="cat with sunglasses" --out={out}/interpolate_unseen',
        'grid.png',
    ),
    (
        'Invert, and decode with another prompt',
        'invert',
        'edit invert --workdir={run} --image={out}/cat/1.png --prompt="cat face" --new-prompt="crying cat" '
        '--strength=0.7 --out={out}/invert',
        'sheet.png',
    ),
]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', default='runs/emoji', metavar='DIR', help='of configs/emoji.py, trained')
    parser.add_argument('--write', metavar='FILE', help='the page whose gallery is replaced')
    args = parser.parse_args(argv)
    shutil.rmtree(OUT, ignore_errors=True)
    parts = []
    for title, name, command, sheet in SCENES:
        words = command.format(run=args.workdir, out=OUT)
        print(f'diffusion {words}', file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, '-m', 'diffusion.cli', *shlex.split(words)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        if title:
            parts.append(f'### {title}\n')
        shown = command.format(run='runs/emoji', out=OUT)
        parts.append(f'```\n$ diffusion {_folded(shown)}\n{done.stdout.replace(args.workdir, "runs/emoji")}```\n')
        if name:
            image = Path('docs/images') / f'edit_{name}.png'
            if args.write:
                shutil.copy(OUT / name / sheet, ROOT / image)
            parts.append(f'![{title}](images/{image.name})\n')
        if words.endswith(f'{OUT}/cat'):
            parts.append(_prepared())
    text = '\n'.join(parts)
    if args.write:
        page = Path(args.write).read_text(encoding='utf-8')
        first, last = MARKS
        head, tail = page.index(first) + len(first), page.index(last)
        Path(args.write).write_text(f'{page[:head]}\n{text}\n{page[tail:]}', encoding='utf-8')
    else:
        print(text)
    return 0


def _prepared() -> str:
    """Makes the mask of a mouth, the upper half of the face, and the face at half its size."""
    mask = np.zeros((16, 16), np.uint8)
    mask[9:14, 3:13] = 255
    face = np.asarray(Image.open(OUT / 'face' / '1.png'))
    Image.fromarray(mask).save(OUT / 'mouth.png')
    Image.fromarray(face[:8]).save(OUT / 'upper.png')
    small = face.reshape(8, 2, 8, 2, 3).mean((1, 3))
    Image.fromarray(np.rint(small).astype(np.uint8)).save(OUT / 'small.png')
    return (
        '`mouth.png` is white in rows 9 to 13 and columns 3 to 12; `upper.png` is the upper half of the face; '
        '`small.png` holds the means of its squares of 2 × 2 pixels.\n'
    )


def _folded(command: str) -> str:
    """In lines of at most 100 characters."""
    lines = ['']
    for word in re.findall(r'(?:[^\s"]|"[^"]*")+', command):
        if len(lines[-1]) + len(word) > 96:
            lines[-1] += ' \\'
            lines.append('   ')
        lines[-1] = f'{lines[-1]} {word}' if lines[-1] else word
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
