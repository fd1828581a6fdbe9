"""From a path to the examples that lie there: the one way in for every format."""

import os
import posixpath

from diffusion.data import arrays, entries, folder, parquet, prepared, storage, tars

INFO = 'dataset_info.json'
SPLITS = frozenset({'train', 'training', 'test', 'testing', 'val', 'valid', 'validation'})
_PACKED = ('.zip', '.tar.gz', '.tgz', '.tar.xz', '.tar.bz2', '.tar.zst', '.7z')


def open(path: str, split: str = '', label: str = 'auto', caption: str = 'auto') -> entries.Entries:
    """The examples at a path: a folder of images, of Parquet files or of tars, or one such file, a tar pattern
    ('a-{000..009}.tar'), an .npz or .npy, a prepared TFDS folder, 'tfds:NAME[/CONFIG][:SPLIT]'; local or a URL.

    split: a folder below, files that begin with its name, keys that end with it, or a split of TFDS; label, caption:
    'auto', 'none', or the name of the column, key or feature. Raises ValueError and FileNotFoundError, one line each,
    for what is not there, damaged, or contradicts itself; single images that are damaged are found by who decodes them.
    """
    if not path:
        raise ValueError('path is empty: name a folder of images, --config.data.path=DIR, or one of docs/data.md')
    if path.startswith('tfds:'):
        return prepared.open_spec(path.removeprefix('tfds:'), split, label, caption)
    path = path if storage.remote(path) else os.path.expanduser(path)
    path = path.rstrip('/') or '/'
    if '{' in path:
        return _tar_pattern(path, split, label, caption)
    kind = storage.kind(path)
    if not kind:
        raise storage.missing(path)
    if kind == 'file':
        return _file(path, split, label, caption)
    return _folder(path, split, label, caption)


def _file(path, split, label, caption):
    lower = path.lower()
    if lower.endswith(('.npz', '.npy')):
        return arrays.open(path, split, label, caption)
    if lower.endswith(_PACKED):
        raise ValueError(f'{path} is compressed as a whole, so nothing in it can be read alone: unpack it')
    if split:
        raise ValueError(f'{path} is one file: split={split!r} chooses among the files of a folder')
    files = [storage.File('', storage.size(path))]
    if lower.endswith('.parquet'):
        return _some(parquet.open(path, files, label, caption), path)
    if lower.endswith('.tar'):
        return tars.open(path, files, label, caption)
    if posixpath.basename(path) == INFO:
        return prepared.open(posixpath.dirname(path) or '.', split, label, caption)
    raise ValueError(
        f'{path} is no set: a folder of images, .parquet, .tar, .npz, .npy or a folder with {INFO} is wanted'
    )


def _tar_pattern(pattern, split, label, caption):
    if split:
        raise ValueError(f'{pattern} names its files: split={split!r} chooses among the files of a folder')
    if not pattern.endswith('.tar'):
        raise ValueError(f'{pattern}: patterns with braces name .tar files')
    paths = tars.braces(pattern)
    absent = [path for path in paths if storage.kind(path) != 'file']
    if absent:
        raise FileNotFoundError(f'{absent[0]} is not there, {len(absent)} of {len(paths)} files of {pattern}')
    # What comes before the first brace is the same in all.
    root = pattern[: pattern.index('{')].rpartition('/')[0] or ('/' if pattern.startswith('/') else '.')
    names = [path.removeprefix(root).lstrip('/') if root != '.' else path for path in paths]
    files = [storage.File(name, storage.size(path)) for name, path in zip(names, paths)]
    return tars.open(root, files, label, caption)


def _folder(path, split, label, caption):
    if storage.kind(storage.join(path, INFO)) == 'file':
        return prepared.open(path, split, label, caption)
    files = storage.walk(path)
    if split and any(one.name.startswith(f'{split}/') for one in files):
        path = storage.join(path, split)
        files = [
            storage.File(one.name.removeprefix(f'{split}/'), one.size)
            for one in files
            if one.name.startswith(f'{split}/')
        ]
        split = ''
    found = {
        suffix: [one for one in files if one.name.lower().endswith(suffix)] for suffix in ('.parquet', '.tar', '.npz')
    }
    found['images'] = [one for one in files if folder.is_image(one.name)]
    kinds = [kind for kind, some in found.items() if some]
    if not kinds:
        raise ValueError(_nothing(path, files))
    if len(kinds) > 1:
        first = ' and '.join(f'{len(found[kind])} {kind} ({found[kind][0].name})' for kind in kinds)
        raise ValueError(f'{path} holds {first}: name the folder of one of them')
    kind = kinds[0]
    if kind == 'images':
        _check_splits(path, split, files)
        return folder.open(path, files, label, caption)
    if kind == '.npz':
        if len(found[kind]) > 1:
            raise ValueError(f'{path} holds {len(found[kind])} .npz files: name one')
        return arrays.open(storage.join(path, found[kind][0].name), split, label, caption)
    chosen = _of_split(path, split, found[kind])
    opened = parquet.open if kind == '.parquet' else tars.open
    return _some(opened(path, chosen, label, caption), path)


def _some(made, path):
    if not made.length:
        raise ValueError(f'{path} is empty: it holds no example')
    return made


def _nothing(path, files):
    if not files:
        return f'{path} is empty'
    suffixes = sorted({posixpath.splitext(one.name)[1] or one.name for one in files})
    inside = [one.name for one in files if one.name.endswith(f'/{INFO}')]
    if inside:
        return f'{path} holds prepared sets deeper down: name {storage.join(path, posixpath.dirname(inside[0]))}'
    return (
        f'{path} holds no image: {len(files)} files of {", ".join(suffixes[:10])}; {" ".join(folder.SUFFIXES)} are read'
    )


def _check_splits(path, split, files):
    tops = sorted({one.name.partition('/')[0] for one in files if '/' in one.name})
    if split:
        raise ValueError(f'{path} has no folder {split!r}: there are {", ".join(tops[:20]) or "none"}')
    if tops and SPLITS.issuperset(tops) and (len(tops) > 1 or 'train' in tops):
        raise ValueError(
            f'{path} holds the splits {", ".join(tops)}: choose one, split={tops[-1]!r}, or name its folder'
        )


def _of_split(path, split, files):
    """Those files of a folder that belong to a split: 'train-00000-of-00004.parquet', 'train.tar', 'train_0.tar'."""

    def named(one):
        base = posixpath.basename(one.name)
        for word in SPLITS | {split}:
            if base.startswith(word) and not base[len(word) : len(word) + 1].isalnum():
                return word
        return ''

    if split:
        chosen = [one for one in files if named(one) == split]
        if not chosen:
            raise ValueError(f'{path} has no file of split {split!r}: the first is {files[0].name}')
        return chosen
    splits = sorted({named(one) for one in files} - {''})
    if len(splits) > 1:
        raise ValueError(f'{path} holds the splits {", ".join(splits)}: choose one with split')
    return files
