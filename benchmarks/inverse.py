"""The table of editing methods: what each does to laws whose posterior is known.

    python benchmarks/inverse.py --write=docs/inverse.md

The laws and the closed forms are those of `tests/oracle.py`, the problems those of `tests/inverse.py`. About ten
minutes on one CPU core. Without --write the page is printed.
"""

import argparse
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import inverse

STEPS, COUNT = 60, 4000
# Name of the operator, Gaussians in the law, noise, title.
PROBLEMS = (
    ('mask', 1, 0.0, 'half of 16 pixels hidden, one Gaussian'),
    ('mask', 3, 0.0, 'the same, a mixture of three'),
    ('mask', 1, 0.2, 'the same, one Gaussian, with noise 0.2'),
    ('downsample', 1, 0.0, 'means of 2 × 2 pixels, one Gaussian'),
    ('grey', 1, 0.0, 'luminance of 6 colour pixels, one Gaussian'),
    ('blur', 1, 0.1, 'Gaussian blur of 0.7 pixels with noise 0.1, one Gaussian'),
)
OPTIONS = {'mmps': {'iterations': 12}}

HEAD = f"""# How far is each editing method from the exact posterior?

Every editing method of `diffusion/core/` on pictures whose law is a Gaussian or a mixture of three: p(x₀ | y) is then
known in closed form (`oracle.Mixture.measured`). The denoiser is the exact one, so what is left is the method's
own error.
{COUNT:,} samples of N = {STEPS} steps on Karras's grid from sigma = 80 to 0.005. *Mean*: root mean square error of the
mean, in deviations of the posterior (chance: {COUNT**-0.5:.2f}). *Spread*: trace of the covariance over the exact one,
less than 1 is too sure. *Covariance*: Frobenius norm of its error over that of the exact one (chance: about 0.04).
*NFE*: evaluations a sample.

`replacement`, `repaint`, `dps` and `differential` know nothing of the noise of a measurement: with noise they are
biased by all of it. `differential` is for masks alone. `mmps` has 12 iterations here, where its default is 3. The page
is written by `python benchmarks/inverse.py --write=docs/inverse.md`; `tests/core/test_editing.py` holds the same facts
to bounds.
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--write', metavar='FILE', help='write the page there instead of printing it')
    args = parser.parse_args(argv)
    jax.config.update('jax_platforms', 'cpu')
    text = '\n'.join([HEAD, *(section(*problem) for problem in PROBLEMS)])
    if args.write:
        Path(args.write).write_text(text, encoding='utf-8')
    else:
        print(text)
    return 0


def section(operator: str, count: int, noise: float, title: str) -> str:
    problem = inverse.problem(operator, count, noise)
    rows = []
    for name, make in inverse.EDITORS.items():
        if name == 'differential' and operator != 'mask':
            continue
        print(operator, name, file=sys.stderr, flush=True)
        drawn = inverse.sampled(problem, make(**OPTIONS.get(name, {})), STEPS, COUNT)
        rows.append((name, inverse.error(problem, inverse.points(drawn)), int(drawn.nfe[0])))
    return table(title, rows)


def table(title: str, rows: list[tuple[str, inverse.Error, int]]) -> str:
    lines = [f'## {title[0].upper()}{title[1:]}', '', '| method | mean | spread | covariance | NFE |']
    lines.append('|---|---|---|---|---|')
    for name, found, nfe in rows:
        lines.append(f'| `{name}` | {found.mean:.2f} | {found.spread:.2f} | {found.covariance:.2f} | {nfe} |')
    return '\n'.join([*lines, ''])


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
