"""Going back to the last good checkpoint when steps in a row could not be counted."""

import functools

import jax

from diffusion.programs import beginning, logbook
from diffusion.runtime import checkpoint, state


def go_back(setup, saved: checkpoint.Checkpoints, book: logbook.Logbook, current, line) -> tuple[state.TrainState, int]:
    """The state to go on from and its step; the book's standing then passes over the data of the bad steps.

    setup: `train.Setup`; current: the state that is given up. What a kill in the middle of this leaves behind, a
    checkpoint of the bad steps or none, comes back here by the same way and with the same result.
    """
    standing = book.standing
    step = logbook.last_good(saved, standing.last - standing.bad)
    run, target = setup.run, state.like(current)
    saved.forget_after(step)
    for leaf in jax.tree.leaves(current):
        leaf.delete()  # two states need not fit at once
    begin = functools.partial(beginning.create, run, target, setup.mesh, setup.folder, line.say)
    current = saved.restore(step, target) if step else begin()
    batch = run.train.batch
    after = standing.back(step, batch)
    book.go_on(step, after)
    line.say(
        f'{standing.bad} steps in a row were skipped: back to '
        f'{f"the checkpoint of step {step}" if step else "the beginning, since no checkpoint is older"}, passing over '
        f'{after.offset - standing.offset:,} examples'
    )
    return current, step
