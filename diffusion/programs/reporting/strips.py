"""The forward and the reverse process as strips: a row of pictures an example, or of clouds of points."""

import io

import numpy as np
import PIL.Image

from diffusion.programs import page
from diffusion.programs.reporting import axes, chart, unrolled, view
from diffusion.runtime import pictures

SIDE = 128  # pixels above which a picture is made smaller
CLOUD = 100  # user units of a cloud of points

STYLE = """
.strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(4.2rem, 1fr); gap: .3rem; overflow-x: auto;
  margin: .3rem 0; }
.strip figcaption { max-height: none; }
.strip .cloud svg { border: 1px solid var(--line); border-radius: 4px; }
"""


def forward(shown: view.View) -> view.Section:
    """An image of the data that is noised."""
    return _section('The forward process', shown, unrolled.forward)


def reverse(shown: view.View) -> view.Section:
    """Samples that are denoised."""
    return _section('The reverse process', shown, unrolled.reverse)


def _section(title, shown, made):
    if shown.opened is None:
        return view.Section(title, [view.note('Left out: --no-model.')])
    try:
        found = list(_strip(made(shown.opened())))
    except Exception as error:
        # Whatever keeps the model from being drawn from, the rest of the report is as true.
        said = ' '.join(str(error).split()) or type(error).__name__
        return view.Section(title, [view.note(f'Not to be had here: {said}', bad=True)])
    return view.Section(title, found)


def _strip(strip: unrolled.Strip):
    yield view.note(strip.said)
    for name, levels in strip.rows:
        drawn = _pictures(levels, strip.labels) if levels.dtype == 'uint8' else _clouds(levels, strip.labels)
        yield f'{view.note(name) if name else ""}<div class="strip">{"".join(drawn)}</div>'


def _pictures(levels, labels):
    return [page.figure(_png(image), label) for image, label in zip(levels, labels)]


def _png(image) -> bytes:
    drawn = pictures.to_pil(image)
    if max(drawn.size) > SIDE:
        drawn.thumbnail((SIDE, SIDE), PIL.Image.Resampling.BOX)
    buffer = io.BytesIO()
    drawn.save(buffer, 'PNG')
    return buffer.getvalue()


def _clouds(levels, labels):
    """Points of the plane, [L, N, 2], all in the one square that holds those of every level."""
    # Of both coordinates together: a circle stays one.
    across = axes.span(levels.ravel().tolist(), 2, CLOUD - 2)
    up = axes.span(levels.ravel().tolist(), CLOUD - 2, 2)
    for points, label in zip(levels, labels):
        finite = points[np.isfinite(points).all(1)]
        dots = [
            f'<circle class="d0" cx="{across.place(x):.1f}" cy="{up.place(y):.1f}" r=".9"/>' for x, y in finite.tolist()
        ]
        lost = len(points) - len(finite)
        said = f'{len(finite)} points' + (f', {lost} are not finite and left out' if lost else '')
        drawn = chart.svg(label, said, dots, CLOUD, CLOUD)
        yield f'<figure class="cloud">{drawn}<figcaption>{page.text(label)}</figcaption></figure>'
