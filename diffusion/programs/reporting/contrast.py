"""What differs between a run and another: config, facts of the data, versions."""

from diffusion.evaluation import protocol
from diffusion.programs import page
from diffusion.programs.reporting import view

PARTS = ('config', 'facts', 'versions', 'commit')


def section(shown: view.View) -> view.Section | None:
    """None where there is no other run."""
    if shown.against is None:
        return None
    (here, run), (there, other) = shown.runs()
    changed = protocol.differences(*({part: one.about.get(part) for part in PARTS} for one in (run, other)))
    if not changed:
        same = f'{here} and {there} have the same config, data, versions and commit.'
        return view.Section('Differences', [view.note(same)])
    rows = [
        [key.removeprefix('config.'), view.short(mine), view.short(theirs)] for key, (mine, theirs) in changed.items()
    ]
    return view.Section('Differences', [view.note(f'{len(rows)} keys differ.'), page.table(['', here, there], rows)])
