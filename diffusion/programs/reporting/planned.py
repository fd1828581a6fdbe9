"""What `diffusion plan` said of a run, where its figures lie in the workdir."""

import json

from diffusion.programs import page, workdir
from diffusion.programs.planning import printed
from diffusion.programs.reporting import view


def section(shown: view.View) -> view.Section | None:
    """Of the run alone; None where there is no plan."""
    path = shown.run.folder / workdir.PLAN
    if not path.exists():
        return None
    try:
        lines = printed.lines(json.loads(path.read_text(encoding='utf-8')))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        said = f'{workdir.PLAN} is no plan of this version ({type(error).__name__}: {error})'
        return view.Section('What was planned', [view.note(said, bad=True)])
    return view.Section('What was planned', [f'<div class="wide"><pre>{page.text(chr(10).join(lines))}</pre></div>'])
