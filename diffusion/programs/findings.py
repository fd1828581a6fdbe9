"""What a look at every image of a set has found."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from diffusion.data import buckets

SHOWN = 20  # names of files, of duplicates, of anything that may be many


@dataclasses.dataclass(frozen=True)
class Look:
    """One example. name, label, caption: as in `entries.Example`; reason: why its image cannot be read, '' where it
    can; content: names its numbers; stored: how it lies there, as 'JPEG RGB'; size: (height, width) upright; cut: the
    share of its area that the crop takes away."""

    name: str
    label: int
    caption: str
    reason: str = ''
    content: str = ''
    stored: str = ''
    size: tuple[int, int] = (0, 0)
    cut: float = 0.0


class Tally:
    """Adds up looks. Keeps a few bytes an image, whatever their number."""

    def __init__(self, classes: Sequence[str], captioned: bool, shapes: tuple[int, int, int] | None = None):
        """shapes: how many buckets, of the square of how many pixels, of sides that divide by what; None: squares."""
        self.classes, self.captioned, self.shapes = tuple(classes), captioned, shapes
        self.examples = self.longest = 0
        self.stored: collections.Counter = collections.Counter()
        self.sizes: collections.Counter = collections.Counter()
        self.labels: collections.Counter = collections.Counter()
        self.cuts: list[float] = []
        self.most_cut: list[tuple[float, str]] = []
        self.bad: list[tuple[str, str]] = []
        self.copies: dict[str, list[str]] = {}  # of contents seen more than once: the first names
        self.captions: list[str] = []
        self.uncaptioned = self.extra = 0
        self._first: dict[bytes, str] = {}

    def add(self, look: Look) -> None:
        self.examples += 1
        self.labels[look.label] += 1
        if self.captioned:
            self._caption(look.caption)
        if look.reason:
            self.bad.append((look.name, look.reason))
            return
        self.stored[look.stored] += 1
        self.sizes[look.size] += 1
        self.cuts.append(look.cut)
        if look.cut:
            self.most_cut = sorted([*self.most_cut, (look.cut, look.name)], reverse=True)[:5]
        self._copy(look)

    def _caption(self, caption):
        self.uncaptioned += not caption
        self.longest = max(self.longest, len(caption))
        if caption and len(self.captions) < 5 and caption not in self.captions:
            self.captions.append(caption)

    def _copy(self, look):
        key = bytes.fromhex(look.content)
        first = self._first.setdefault(key, look.name)
        if first is not look.name:
            self.extra += 1
            self.copies.setdefault(look.content, [first]).append(look.name)

    @property
    def readable(self) -> int:
        return self.examples - len(self.bad)

    def quantiles(self) -> dict[str, list[int]]:
        """Of height and width: the least, 5 %, the median, 95 %, the largest."""
        found = {}
        for axis, name in enumerate(('height', 'width')):
            counts = collections.Counter()
            for size, count in self.sizes.items():
                counts[size[axis]] += count
            values = np.array(sorted(counts))
            upto = np.cumsum([counts[value] for value in values.tolist()])
            places = [upto.searchsorted(share * upto[-1]) for share in (0, 0.05, 0.5, 0.95, 1)] if len(values) else []
            found[name] = [int(values[min(place, len(values) - 1)]) for place in places]
        return found

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """(title, head, rows) of all that was found, for people."""
        found = [
            ('Examples', ['', ''], [[name, f'{count:,}'] for name, count in self._counts()]),
            ('Stored as', ['format and mode', 'images'], _common(self.stored)),
        ]
        if self.sizes:
            edges = ['', 'least', '5 %', 'median', '95 %', 'largest']
            found.append(('Sizes', edges, [[name, *map(str, row)] for name, row in self.quantiles().items()]))
            sizes = {f'{width} x {height}': count for (height, width), count in self.sizes.items()}
            found.append(('Commonest sizes', ['width x height', 'images'], _common(sizes, 10)))
        if self.shapes and self.sizes:
            found.append(('Buckets', ['width x height', 'images', 'cut in the mean'], list(self._buckets())))
        elif self.most_cut:
            found.append(('The crop', ['', ''], self._crop()))
        if self.classes:
            rows = [[name, f'{self.labels[label]:,}'] for label, name in enumerate(self.classes)]
            more = [['(no label)', f'{self.labels[-1]:,}']] if self.labels[-1] else []
            found.append((f'Classes: {len(self.classes):,}', ['class', 'examples'], [*rows, *more]))
        if self.captioned:
            rows = [['without one', f'{self.uncaptioned:,}'], ['longest', f'{self.longest:,} characters']]
            found.append(('Captions', ['', ''], [*rows, *(['such as', text] for text in self.captions)]))
        if self.copies:
            rows = [[f'{len(names)} times', ', '.join(names[:5])] for names in list(self.copies.values())[:SHOWN]]
            found.append((f'Pictures that are there more than once: {len(self.copies):,}', ['', 'files'], rows))
        if self.bad:
            rows = [list(row) for row in self.bad[:SHOWN]]
            found.append((f'Unreadable: {len(self.bad):,}', ['file', 'reason'], rows))
        return found

    def _counts(self):
        yield 'examples', self.examples
        yield 'readable', self.readable
        yield 'unreadable', len(self.bad)
        yield 'copies of another', self.extra

    def _crop(self):
        cuts = np.array(self.cuts)
        rows = [
            ['images that lose something', f'{np.count_nonzero(cuts):,}'],
            ['of their area, in the mean', f'{cuts.mean():.1%}'],
            ['at most', f'{cuts.max():.1%}'],
        ]
        return [*rows, *(['most cut', f'{name} ({cut:.0%})'] for cut, name in self.most_cut)]

    def _buckets(self):
        sizes = np.repeat(np.array(list(self.sizes)), list(self.sizes.values()), axis=0)
        found = buckets.choose(sizes, *self.shapes)
        for (height, width), ids, cut in zip(found.sizes, found.members, found.cut):
            yield [f'{width} x {height}', f'{len(ids):,}', f'{cut:.1%}']

    def lines(self) -> list[str]:
        """The tables as text."""
        found = []
        for title, head, rows in self.tables():
            found += ['', title]
            table = ([head] if any(head) else []) + rows[:SHOWN]
            widths = [max(len(row[column]) for row in table) for column in range(len(head))]
            for row in table:
                found.append(('  ' + '  '.join(cell.ljust(width) for cell, width in zip(row, widths))).rstrip())
            if len(rows) > SHOWN:
                found.append(f'  and {len(rows) - SHOWN:,} more')
        return found[1:]


def _common(counts, most: int = SHOWN) -> list[list[str]]:
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in ranked[most:])
    rows = [[str(name), f'{count:,}'] for name, count in ranked[:most]]
    return [*rows, *([[f'{len(ranked) - most:,} others', f'{rest:,}']] if rest else [])]
