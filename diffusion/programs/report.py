"""`diffusion report`: a run as one page of HTML that opens offline."""

import functools
import sys
from pathlib import Path

from diffusion import usage
from diffusion.programs import opening, page
from diffusion.programs.reporting import (
    about,
    chart,
    contrast,
    planned,
    record,
    results,
    samples,
    strips,
    sweeps,
    training,
    troubles,
    unrolled,
    view,
)
from diffusion.runtime import writer

FILE = 'report.html'
MARK = 'diffusion report'  # by which a page of ours is known
# View -> Section, or None where there is nothing to say. To add a section, add its function.
SECTIONS = (
    about.section,
    planned.section,
    contrast.section,
    training.losses,
    results.curves,
    results.heat_maps,
    samples.section,
    strips.forward,
    strips.reverse,
    training.meters,
    troubles.section,
)
STYLE = """
body { max-width: 72rem; }
h2 { border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 2rem; }
nav { font-size: .85rem; display: flex; flex-wrap: wrap; gap: .2rem .9rem; margin: .6rem 0; }
td:first-child, th { overflow-wrap: break-word; }
a { color: var(--c0); }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--soft); }
"""


def main(argv: list[str]) -> int:
    """Exit status 0, or 2."""
    args, overrides = _parsed(argv)
    with usage.checked():
        run = record.read(args.workdir)
        against = record.read(args.against) if args.against else None
        out = _free(Path(args.out or Path(args.workdir) / FILE), args.overwrite)
        if overrides:
            _check(args, overrides)
    # Once, and only when the first strip is drawn: the run may lack what that needs.
    opened = functools.cache(lambda: unrolled.opened(args.workdir, overrides))
    if not args.no_model:
        print('drawing the strips with the model, on the CPU (--no-model leaves them out)', file=sys.stderr)
    text = render(view.View(run, against, None if args.no_model else opened))
    with usage.checked(), writer.atomic(out) as file:
        file.write(text.encode())
    print(f'written to {out} ({len(text) / 1e6:.1f} MB): it opens in any browser, offline')
    return 0


def render(shown: view.View) -> str:
    """The whole page."""
    sections = [section for make in SECTIONS if (section := make(shown))]
    title = shown.run.name + (f' against {shown.against.name}' if shown.against else '')
    links = ''.join(f'<a href="#s{i}">{page.text(section.title)}</a>' for i, section in enumerate(sections))
    body = [
        f'<h1>{page.text(title)}</h1>',
        f'<p>{page.text(about.state(shown.run))}</p>',
        f'<nav>{links}</nav>',
        '<main>',
    ]
    for i, section in enumerate(sections):
        body += [f'<section id="s{i}"><h2>{page.text(section.title)}</h2>', *section.body, '</section>']
    style = chart.STYLE + sweeps.STYLE + samples.STYLE + strips.STYLE + STYLE
    return page.document(title, [*body, '</main>'], style=style, script=samples.SCRIPT, generator=MARK)


def _parsed(argv):
    parser = usage.Parser('report', __doc__.split(': ', 1)[1])
    parser.add_argument('--workdir', required=True, metavar='DIR', help='the run')
    parser.add_argument('--against', metavar='DIR', help='another run: its curves beside, and what differs')
    parser.add_argument('--out', metavar='FILE', help=f'where the page goes (default: {FILE} in the workdir)')
    parser.add_argument('--overwrite', action='store_true', help='replace a file that is no report')
    parser.add_argument('--no-model', action='store_true', help='leave out the strips that the model draws: faster')
    parser.epilog = f'Also --config.SECTION.KEY=VALUE for {", ".join(unrolled.FREE)}; strips are drawn on the CPU.'
    return parser.parse(argv)


def _check(args, overrides):
    """Refuses what would have no effect, or a wrong one: in the page itself it would be said too late."""
    if args.no_model:
        raise ValueError('--config.* says how the strips are drawn, and --no-model leaves them out: drop one of them')
    unrolled.chosen(opening.read(args.workdir)[0], overrides)


def _free(out, overwrite) -> Path:
    """Raises ValueError where something is in the way that is no report."""
    if out.is_dir():
        raise ValueError(f'--out={out} is a folder: name a file')
    if out.exists() and not overwrite:
        with out.open('rb') as file:
            ours = f'content="{MARK}"'.encode() in file.read(1000)
        if not ours:
            raise ValueError(f'{out} is there already and no report: name another --out, or add --overwrite')
    return out
