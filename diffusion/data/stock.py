"""Sets that TFDS knows by name: found, and prepared where they are not, with TensorFlow where that needs it."""

import contextlib
import importlib.util
import io

from diffusion.data import fields


def builder(dataset: str, data_dir: str):
    """The TFDS builder of 'name', 'name/config' or 'name:version'. Raises ValueError with the
    nearest names."""
    import tensorflow_datasets as tfds

    # Importing the module is what makes 'emoji/...' a name that TFDS knows.
    from diffusion.data import emoji_dataset  # noqa: F401

    try:
        # TFDS prints a banner where it misses TensorFlow; the error below says it in a line.
        with contextlib.redirect_stdout(io.StringIO()):
            return tfds.builder(dataset, data_dir=data_dir or None)
    except ModuleNotFoundError as error:
        # TFDS raises it anew with a longer text and without the name.
        missing = str(error).rpartition('No module named ')[2].strip("'")
        raise ValueError(
            f'TFDS set {dataset!r} cannot even be described without {missing}: pip install {missing}'
        ) from error
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        hint = fields.nearest(dataset.split('/')[0], known)
        raise ValueError(f'TFDS has no set {dataset!r}: {hint}') from error
    except (ValueError, AssertionError) as error:
        name, _, config = dataset.partition('/')
        try:
            configs = list(tfds.builder_cls(name.partition(':')[0]).builder_configs)
        except ValueError:
            configs = []
        if config and config.partition(':')[0] not in configs:
            hint = fields.nearest(config, configs) if configs else 'it has no configs'
            raise ValueError(f'TFDS set {name!r} has no config {config!r}: {hint}') from error
        raise ValueError(f'TFDS set {dataset!r}: {str(error).splitlines()[0]}') from error


def there(made) -> bool:
    """Whether the set of a builder is prepared."""
    # made.is_prepared() asks the same and logs a warning where the answer is no.
    return (made.data_path / 'dataset_info.json').exists()


def write(dataset: str, data_dir: str) -> None:
    """Writes a set whose builder needs neither downloads nor TensorFlow, unless it is there.

    Several processes may do so at once. Raises ValueError where the folder cannot be written.
    """
    import tensorflow_datasets as tfds

    made = tfds.builder(dataset, data_dir=data_dir or None, file_format='array_record')
    if there(made):
        return
    config = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP)
    # TFDS announces itself on stdout and draws a bar for what takes a fraction of a second.
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            made.download_and_prepare(download_config=config)
    except (OSError, ValueError) as error:
        # TFDS writes aside and renames; who comes second finds the name taken, by the same data.
        if not there(tfds.builder(dataset, data_dir=data_dir or None)):
            raise ValueError(
                f'{dataset} cannot be prepared at {made.data_path}: {error}; give a data_dir that can be written'
            ) from error


def prepare(dataset: str, data_dir: str) -> str:
    """Prepares a set that is not, as array_record, and returns its folder. Prints TFDS's own progress.

    dataset: 'name', 'name/config' or 'name:version'; data_dir: '' for TFDS's own. Raises ValueError where that needs
    TensorFlow, which is not there, or fails.
    """
    import tensorflow_datasets as tfds

    made = builder(dataset, data_dir)
    if there(made):
        return str(made.data_path)
    if made.name == 'emoji':
        write(dataset, data_dir)
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


def commands(made, data_dir: str) -> str:
    """What a user types to prepare a set."""
    name = '/'.join(filter(None, [made.name, made.builder_config and made.builder_config.name]))
    place = f' --data_dir={data_dir}' if data_dir else ''
    manual = ''
    if made.MANUAL_DOWNLOAD_INSTRUCTIONS:
        manual = f' --manual_dir=FOLDER (the archives that tensorflow.org/datasets/catalog/{made.name} asks for)'
    return f'pip install tensorflow importlib_resources && tfds build {name} --file_format=array_record{place}{manual}'
