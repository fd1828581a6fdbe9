"""Pages of HTML that need nothing beside them: no network, every picture inside, whatever they show of a user escaped.

Their policy (Content-Security-Policy) lets a browser load nothing and run nothing but the one script of ours that it
names by its hash.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence

# What no HTML or XML can hold, not even escaped.
_ILLEGAL = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #5f5f65; --line: #d9d9de; --page: #ffffff; --good: #1a7f37;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --soft: #a9a9b1; --line: #3a3a40; --page: #17171a;
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


def text(value) -> str:
    """Anything as text that is only that, in HTML and XML, between tags and inside quotes."""
    return html.escape(_ILLEGAL.sub('\ufffd', str(value)))


def document(title: str, body: Iterable[str], *, style: str = '', script: str = '', generator: str = '') -> str:
    """A whole page. body: pieces of HTML; style, script: beyond what every page has; generator: the program's name."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    parts = [
        '<!doctype html>',
        '<html lang="en"><head><meta charset="utf-8">',
        *([f'<meta name="generator" content="{text(generator)}">'] if generator else []),
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{text(title)}</title><style>{STYLE}{style}</style></head><body>',
        *body,
        *([f'<script>{script}</script>'] if script else []),
        '</body></html>',
    ]
    return '\n'.join(parts) + '\n'


def image(png: bytes, alt: str) -> str:
    """A picture, inside the page. png: the bytes of a PNG file."""
    return f'<img alt="{text(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def figure(png: bytes, label: str) -> str:
    """A picture with its label below."""
    return f'<figure>{image(png, label)}<figcaption>{text(label)}</figcaption></figure>'


def table(head: Sequence, rows: Iterable[Sequence]) -> str:
    """Cells are text; a head of nothing but '' is left out."""
    cells = ['<div class="wide"><table>']
    if any(head):
        cells.append('<tr>' + ''.join(f'<th scope="col">{text(cell)}</th>' for cell in head) + '</tr>')
    cells += ['<tr>' + ''.join(f'<td>{text(cell)}</td>' for cell in row) + '</tr>' for row in rows]
    return '\n'.join([*cells, '</table></div>'])
