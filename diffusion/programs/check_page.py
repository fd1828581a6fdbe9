"""A set on one page of HTML that needs nothing beside it: no script, no network, every picture inside."""

import base64
import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #6b6b70; --line: #d9d9de; --page: #ffffff; --good: #1a7f37;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --soft: #a0a0a8; --line: #3a3a40; --page: #17171a;
  --good: #56d364; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--ink);
  font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: .2rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .3rem 0; color: var(--soft); overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  font-weight: 400; overflow-wrap: anywhere; }
th { color: var(--soft); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: .6rem; }
figure { margin: 0; min-width: 0; }
img { width: 100%; image-rendering: pixelated; border: 1px solid var(--line); border-radius: 4px; display: block; }
figcaption { font-size: .75rem; color: var(--soft); overflow-wrap: anywhere; max-height: 3.2rem; overflow: hidden; }
"""


def page(
    title: str,
    facts: Sequence[str],
    verdict: tuple[bool, str],
    pictures: Sequence[tuple[bytes, str]],
    tables: Sequence[tuple[str, list[str], list[list[str]]]],
) -> str:
    """facts: lines below the title; verdict: whether all is well, and the line that says so; pictures: PNG bytes and
    what is written below; tables: (title, head, rows)."""
    well, said = verdict
    parts = [
        '<!doctype html>',
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>',
        f'<h1>{html.escape(title)}</h1>',
        *(f'<p>{html.escape(line)}</p>' for line in facts),
        f'<p class="{"good" if well else "bad"}"><b>{html.escape(said)}</b></p>',
        *(_table(*table) for table in tables[:1]),
        *_grid(pictures),
        *(_table(*table) for table in tables[1:]),
        '</body></html>',
    ]
    return '\n'.join(parts) + '\n'


def _grid(pictures):
    if pictures:
        yield f'<h2>{len(pictures)} of them, as they are trained on</h2><div class="grid">'
        for png, label in pictures:
            source = base64.b64encode(png).decode()
            text = html.escape(label)
            image = f'<img alt="{text}" src="data:image/png;base64,{source}">'
            yield f'<figure>{image}<figcaption>{text}</figcaption></figure>'
        yield '</div>'


def _table(title, head, rows):
    cells = [f'<h2>{html.escape(title)}</h2><div class="wide"><table>']
    if any(head):
        cells.append('<tr>' + ''.join(f'<th>{html.escape(cell)}</th>' for cell in head) + '</tr>')
    cells += ['<tr>' + ''.join(f'<td>{html.escape(cell)}</td>' for cell in row) + '</tr>' for row in rows]
    return '\n'.join([*cells, '</table></div>'])
