"""What `diffusion data check` finds as one page of HTML."""

from collections.abc import Sequence

from diffusion.programs import page


def render(
    title: str,
    facts: Sequence[str],
    verdict: tuple[bool, str],
    pictures: Sequence[tuple[bytes, str]],
    tables: Sequence[tuple[str, list[str], list[list[str]]]],
) -> str:
    """facts: lines below the title; verdict: whether all is well, and the line that says so; pictures: PNG bytes and
    what is written below; tables: (title, head, rows)."""
    well, said = verdict
    titled = [f'<h2>{page.text(name)}</h2>{page.table(head, rows)}' for name, head, rows in tables]
    body = [
        f'<h1>{page.text(title)}</h1>',
        *(f'<p>{page.text(line)}</p>' for line in facts),
        f'<p class="{"good" if well else "bad"}"><b>{page.text(said)}</b></p>',
        *titled[:1],
        *_grid(pictures),
        *titled[1:],
    ]
    return page.document(title, body, generator='diffusion data check')


def _grid(pictures):
    if pictures:
        yield f'<h2>{len(pictures)} of them, as they are trained on</h2><div class="grid">'
        yield from (page.figure(png, label) for png, label in pictures)
        yield '</div>'
