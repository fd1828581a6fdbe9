"""Reading pages of HTML back: what a browser would see of them."""

import html.parser
import pathlib
import re
from xml.etree import ElementTree

SVG = '{http://www.w3.org/2000/svg}'


class Page(html.parser.HTMLParser):
    """The text of a page, its pictures and scripts, the rows of its tables, its sections, and its plots by title."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.words, self.images, self.open, self.scripts, self.metas, self.addresses = [], [], [], [], [], []
        self.rows, self.sections = [], {}
        self.text = path.read_text(encoding='utf-8')
        self.feed(self.text)
        assert not self.open
        drawn = re.findall(r'<svg xmlns.*?</svg>', self.text, re.S)
        self.svgs = [ElementTree.fromstring(one) for one in drawn]

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [attrs[name] for name in ('src', 'href') if name in attrs]
        if tag == 'img':
            self.images.append(attrs['src'])
        if tag == 'meta':
            self.metas.append(attrs)
        if tag == 'tr':
            self.rows.append([])
        if tag in ('td', 'th'):
            self.rows[-1].append('')
        if tag not in ('meta', 'img', 'input'):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass  # of SVG

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ['script']:
            self.scripts.append(data)
            return
        self.words.append(data)
        if {'td', 'th'} & set(self.open[-1:]):
            self.rows[-1][-1] += data
        if self.open[-1:] == ['h2']:
            self.sections[data] = ''
        elif self.sections:
            self.sections[list(self.sections)[-1]] += data

    def plots(self, title: str) -> list[ElementTree.Element]:
        """The plots whose title is this."""
        return [svg for svg in self.svgs if svg.find(f'{SVG}title').text == title]


def ticks(svg, kind: str) -> list[tuple[float, float]]:
    """(place, number) of the ticks along an axis, 'xtick' or 'ytick', from the labels as a reader sees them."""
    along = 'x' if kind == 'xtick' else 'y'
    lift = 0 if kind == 'xtick' else -4  # text stands on its line, which is below the middle of the letters
    found = [text for text in svg.iter(f'{SVG}text') if text.get('class') == kind]
    return [(float(text.get(along)) + lift, float(text.text.replace(',', ''))) for text in found]


def curves(svg) -> list[list[tuple[float, float]]]:
    """The points of every curve, in user units, pieces joined."""
    paths = [path for path in svg.iter(f'{SVG}path') if 'line' in path.get('class').split()]
    return [[tuple(map(float, point.split())) for point in re.split('[ML]', path.get('d'))[1:]] for path in paths]
