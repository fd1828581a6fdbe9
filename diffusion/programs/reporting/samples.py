"""The sheets of samples that a training has drawn of fixed seeds, under a slider."""

from diffusion.programs import page
from diffusion.programs.reporting import view

MOST = 24  # sheets on a page
BYTES = 12_000_000  # of all sheets on a page, but the first and the last are always there

SCRIPT = """
for (const box of document.querySelectorAll('.slider')) {
  const range = box.querySelector('input'), said = box.querySelector('output');
  const frames = [...box.querySelectorAll('figure')];
  const show = () => {
    frames.forEach((frame, i) => { frame.hidden = i !== Number(range.value); });
    said.textContent = frames[range.value].dataset.said;
  };
  range.hidden = frames.length < 2;
  range.addEventListener('input', show);
  show();
}
"""

STYLE = """
.slider input { width: min(100%, 30rem); display: block; margin: .4rem 0; accent-color: var(--c0); }
.slider input[hidden], .slider figure[hidden] { display: none; }
.slider output { font-variant-numeric: tabular-nums; }
.slider img { width: auto; max-width: 100%; image-rendering: auto; }
"""


def section(shown: view.View) -> view.Section | None:
    """Of the run alone. Without a script, all the sheets are shown one below the other."""
    sheets = shown.run.sheets
    if not sheets:
        return view.Section('Samples over time', [view.note('No sheet of samples has been drawn yet.')])
    read = {step: sheets[step].read_bytes() for step in _chosen(sheets)}
    left_out = len(sheets) - len(read)
    frames = [
        f'<figure data-said="step {step:,}">{page.image(png, f"samples after step {step:,}")}</figure>'
        for step, png in read.items()
    ]
    body = [
        '<div class="slider">',
        f'<input type="range" min="0" max="{len(frames) - 1}" value="{len(frames) - 1}" step="1" hidden '
        'aria-label="step of the samples">',
        '<output aria-live="polite"></output>',
        *frames,
        '</div>',
    ]
    said = 'The same seeds at every step' + (f'; {left_out} of {len(sheets)} sheets are left out.' if left_out else '.')
    return view.Section('Samples over time', [view.note(said), *body])


def _chosen(sheets):
    """The steps whose sheets are shown, evenly spread, as many as there is room for, the first and last among them."""
    steps = list(sheets)
    for count in range(min(MOST, len(steps)), 2, -1):
        some = [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]
        if sum(sheets[step].stat().st_size for step in some) <= BYTES:
            return some
    return list(dict.fromkeys([steps[0], steps[-1]]))
