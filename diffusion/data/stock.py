"""Sets of TFDS, `tfds:NAME`: prepared where they are not, and as entries like those of any other format."""

import importlib.util

import numpy as np

from diffusion.data import entries, records

PREFIX = 'tfds:'


def prepare(dataset: str, data_dir: str) -> str:
    """Prepares a set that is not, as array_record, and returns its folder. Prints TFDS's own progress.

    Raises ValueError where that needs TensorFlow, which is not there, or fails.
    """
    import tensorflow_datasets as tfds

    made = records.builder(dataset, data_dir)
    if not records.prepared(made):
        if made.name == 'emoji':
            records.prepare(dataset, data_dir)
        elif importlib.util.find_spec('tensorflow') is None:
            raise ValueError(
                f'TFDS set {dataset!r} is not prepared at {made.data_path}, and preparing it needs TensorFlow: '
                "pip install 'diffusion[tensorflow]' (reading it afterwards does not)"
            )
        else:
            made = tfds.builder(dataset, data_dir=data_dir or None, file_format='array_record')
            config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
            try:
                made.download_and_prepare(download_config=config)
            except (OSError, ValueError, AssertionError, tfds.core.download.DownloadError) as error:
                raise ValueError(f'TFDS cannot prepare {dataset!r}: {str(error).strip().splitlines()[0]}') from error
    return str(made.data_path)


def opened(dataset: str, split: str = 'train', data_dir: str = '') -> entries.Entries:
    """A prepared split, not decoded. Raises FileNotFoundError with the commands that prepare it, ValueError."""
    # Sizes may differ here; who decodes the images chooses one.
    chosen = records.fields(records.builder(dataset, data_dir).info, image_size=1)
    source, fingerprint = records.stored(dataset, split, data_dir, chosen)

    def named(index):
        return f'{dataset}[{index}]'

    def example(index, found):
        label = int(found[chosen.label]) if chosen.label else -1
        return entries.Example(named(index), found[chosen.image], label, records.text(found, chosen))

    def read(indices):
        wanted = [int(index) for index in indices]
        return [example(index, found) for index, found in zip(wanted, source.__getitems__(wanted))]

    def captions():
        every = range(0, len(source), 256)
        return [one.caption for start in every for one in read(np.arange(start, min(start + 256, len(source))))]

    return entries.Entries(len(source), fingerprint, chosen.classes, bool(chosen.caption), read, captions, named)
