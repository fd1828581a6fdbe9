"""Sets that TFDS knows how to make: prepared where they are not, with TensorFlow where that needs it."""

import importlib.util

from diffusion.data import prepared


def prepare(dataset: str, data_dir: str) -> str:
    """Prepares a set that is not, as array_record, and returns its folder. Prints TFDS's own progress.

    dataset: 'name', 'name/config' or 'name:version'; data_dir: '' for TFDS's own. Raises ValueError where that needs
    TensorFlow, which is not there, or fails.
    """
    import tensorflow_datasets as tfds

    made = prepared.builder(dataset, data_dir)
    if (made.data_path / 'dataset_info.json').exists():
        return str(made.data_path)
    if made.name == 'emoji':
        prepared.prepare(dataset, data_dir)
        return str(made.data_path)
    if importlib.util.find_spec('tensorflow') is None:
        raise ValueError(
            f'TFDS set {dataset!r} is not prepared at {made.data_path}, and preparing it needs TensorFlow: '
            "pip install 'diffusion[tensorflow]' (reading it afterwards does not)"
        )
    made = tfds.builder(dataset, data_dir=data_dir or None, file_format='array_record')
    config = tfds.download.DownloadConfig(compute_stats=tfds.download.ComputeStatsMode.SKIP)
    try:
        made.download_and_prepare(download_config=config)
    except (OSError, ValueError, AssertionError, tfds.core.download.DownloadError) as error:
        raise ValueError(f'TFDS cannot prepare {dataset!r}: {str(error).strip().splitlines()[0]}') from error
    return str(made.data_path)
