"""A folder of steps, each of them a folder that is whole, with its manifest, or not there at all."""

import contextlib
import logging
import os
import shutil
import threading
import warnings
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from diffusion.runtime import manifest, rotation


def steps(folder: Path) -> list[int]:
    """All complete steps of a folder, ascending. Needs no device."""
    return [step for step in numbered(folder) if (folder / str(step) / manifest.FILE).exists()]


def numbered(folder: Path) -> list[int]:
    """All steps of a folder, ascending, those too that have no manifest. Needs no device."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def newest_good(folder: Path, items: tuple[str, ...] | None = None) -> tuple[int | None, list[str]]:
    """The newest step whose files are what was saved (None: there is none), and what is wrong with newer ones.

    items: only these parts are read (None: all). Needs no device.
    """
    said = []
    for step in reversed(numbered(folder)):
        wrong = manifest.problems(folder / str(step), items)
        if not wrong:
            return step, said
        more = f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''
        said.append(f'the checkpoint of step {step} is damaged: {wrong[0]}{more}')
    return None, said


def check_good(folder: Path, step: int, items: tuple[str, ...] | None = None) -> None:
    """Raises manifest.Damaged where the files of a step (items: of these parts) are not what was saved."""
    wrong = manifest.problems(folder / str(step), items)
    if wrong:
        raise manifest.Damaged(f'the checkpoint of step {step} is damaged: {wrong[0]}')


def _worth_saying(record) -> bool:
    """Not that a store that was opened to read is only read."""
    return not any(words in record.getMessage() for words in ('read_only=True', 'directory is read only'))


class Store:
    """Saves and restores trees of arrays by step. Saving is asynchronous; on several processes all of them call.

    The manifest is written before the folder gets its final name, so whatever kills a process, a step that is there
    is whole.
    """

    def __init__(self, folder: Path, rule: rotation.Rule | None = None, create: bool = True):
        """rule: which steps stay (None: all); create: whether it is for saving too, or only for reading."""
        self.folder = Path(os.path.abspath(folder))
        self._content: dict | None = None
        self._watch: threading.Thread | None = None
        self._failure: BaseException | None = None
        logging.getLogger('absl').addFilter(_worth_saying)  # by which Orbax warns
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=rule or rotation.Rule(),
                create=create,
                read_only=not create,
                cleanup_tmp_directories=create,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
                multiprocessing_options=ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=self.folder.name),
            ),
        )

    def steps(self) -> list[int]:
        """All complete steps, ascending."""
        return steps(self.folder)

    def latest(self) -> int | None:
        """The newest complete step."""
        return max(self.steps(), default=None)

    def save(self, step: int, items: dict, meta: dict) -> None:
        """Saves in the background. items: trees of arrays by name; meta: JSON values, for the manifest.

        Waits for the save before. Raises RuntimeError where that one failed.
        """
        self.wait()
        # Read by the thread that writes, which begins after it is set and ends before it is set again.
        self._content = {'step': step, 'meta': meta, 'items': {name: _counted(tree) for name, tree in items.items()}}
        arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        if not self._manager.save(step, args=ocp.args.Composite(**arguments)):
            raise RuntimeError(f'step {step} was not saved: {self.folder} holds a newer one')
        self._watch = threading.Thread(target=self._watching, name='checkpoint watch', daemon=True)
        self._watch.start()

    def _seal(self):
        step = self._content['step']
        written = [path for path in self.folder.iterdir() if path.name.split('.')[0] == str(step)]
        manifest.write(max(written, key=lambda path: path.stat().st_mtime_ns), self._content)

    def _watching(self):
        try:
            self._manager.wait_until_finished()
        except BaseException as error:  # also what is no Exception must stop the run, not this thread alone
            # Orbax drops what was still to write; what Python says of each would bury the error and follow it.
            warnings.filterwarnings('ignore', message='coroutine .* was never awaited', category=RuntimeWarning)
            logging.getLogger('asyncio').setLevel(logging.CRITICAL)
            self._failure = error

    def check(self) -> None:
        """Raises RuntimeError, with the error of the save itself, where a save in the background has failed."""
        if self._failure is not None:
            failed, self._failure = self._failure, None
            with contextlib.suppress(Exception):  # Orbax raises it once to each thread: here it is raised below
                self._manager.wait_until_finished()
            message = ' '.join(str(failed).split())
            kept = f'step {self.latest()} is the newest that is whole' if self.steps() else 'there is no other'
            raise RuntimeError(
                f'the checkpoint of step {self._content["step"]} could not be written to {self.folder}: '
                f'{type(failed).__name__}: {message}; {kept}'
            ) from failed

    def wait(self) -> None:
        """Returns when everything is on disk. Raises RuntimeError where a save failed."""
        if self._watch is not None:
            self._watch.join()
            self._watch = None
        self.check()

    def restore(self, step: int, abstract: dict) -> dict:
        """Items by name, placed as the abstract trees say."""
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        return {name: restored[name] for name in abstract}

    def weights(self, step: int, name: str, abstract: dict) -> dict:
        """One of the items alone."""
        return self.restore(step, {name: abstract})[name]

    def meta(self, step: int) -> dict:
        """What `save` was given as meta."""
        return manifest.read(self.folder / str(step))['meta']

    def newest_good(self, items: tuple[str, ...] | None = None) -> tuple[int | None, list[str]]:
        """`newest_good` of this folder, the same on all processes: process 0 reads, and it alone has what to say."""
        step, said = newest_good(self.folder, items) if jax.process_index() == 0 else (None, [])
        if jax.process_count() > 1:
            found = int(multihost_utils.broadcast_one_to_all(-1 if step is None else step))
            step = None if found < 0 else found
        return step, said

    def forget_after(self, step: int, aside: Path | None = None) -> None:
        """Removes the steps after `step`, damaged ones too: they will be computed again. aside: moves them there."""
        self.wait()
        if jax.process_index() == 0:
            for path in [self.folder / str(later) for later in numbered(self.folder) if later > step]:
                _move(path, aside) if aside else shutil.rmtree(path)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f'{self.folder.name} after {step} forgotten')
        self._manager.reload()

    def close(self) -> None:
        """Waits for what is being written and ends the threads. Raises RuntimeError where a save failed."""
        try:
            self.wait()
        finally:
            self._manager.close()


def _counted(tree) -> dict:
    leaves = jax.tree.leaves(tree)
    count = sum(leaf.size for leaf in leaves)
    return {'arrays': len(leaves), 'numbers': count, 'bytes': sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)}


def _move(path: Path, aside: Path) -> None:
    aside.mkdir(parents=True, exist_ok=True)
    place = aside / path.name
    shutil.rmtree(place, ignore_errors=True)
    path.rename(place)
