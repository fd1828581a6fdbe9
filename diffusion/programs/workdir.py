"""A workdir describes itself: config.json holds the resolved config, the facts of the data, versions and commit."""

import importlib.metadata
import json
import os
import subprocess
from pathlib import Path

from diffusion import build
from diffusion import config as configs
from diffusion.runtime import writer

FILE = 'config.json'
PLAN = 'plan.json'  # of `diffusion plan`
# A run may be prolonged, may move to other devices, whose memory may want other pieces, and may keep other checkpoints:
# it computes the same. Its data, and a text encoder, may lie elsewhere: their
# fingerprints, facts, must be what they were.
FREE = (
    'train.steps',
    'train.accumulate',
    'train.keep',
    'train.best_',
    'train.incidents',
    'runtime.',
    'data.path',
    'data.data_dir',
    'data.memory',
    'data.max_bad',
    'text.path',
    'text.cache',
)


def read(workdir: str) -> tuple[configs.Config, build.Facts] | None:
    """The config and facts of a run, or None where there is no run yet. Raises ValueError for a damaged file."""
    path = Path(workdir) / FILE
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding='utf-8'))
        config = configs.restore(stored['config'], build.SCHEMA)
        return config, build.facts_from_json(stored['facts'], config)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is damaged ({type(error).__name__}: {error}): name another --workdir') from error


def describe(config: configs.Config, facts: build.Facts) -> dict:
    """What config.json and every checkpoint say of a run: JSON values."""
    return {'config': config, 'facts': facts.to_json(), 'versions': versions(), 'commit': commit()}


def write(workdir: str, description: dict) -> None:
    writer.write_json(Path(workdir) / FILE, description)


def check_free(workdir: str) -> None:
    """Refuses a folder that holds something that is not a run."""
    if '://' in workdir:
        raise ValueError(f'--workdir={workdir} is not a local folder; cloud storage must be mounted for now')
    path = Path(workdir)
    if path.exists() and not path.is_dir():
        raise ValueError(f'--workdir={workdir} is a file')
    # A plan may lie there before the run it is of.
    others = [entry.name for entry in path.iterdir() if entry.name != PLAN] if path.exists() else []
    if others and not (path / FILE).exists():
        raise ValueError(
            f'--workdir={workdir} holds {others[0]!r} but no {FILE}: it is not a run; name an empty folder'
        )


def check_same(old: configs.Config, new: configs.Config, old_facts, new_facts, allowed: list[str]) -> None:
    """Refuses a config or data that differ from the workdir's, but for keys named in `allowed`."""
    changed = {key: pair for key, pair in configs.differences(old, new).items() if not key.startswith(FREE)}
    before, after = old_facts.to_json(), new_facts.to_json()
    changed |= {f'facts.{key}': (before[key], after[key]) for key in before if before[key] != after[key]}
    refused = {key: pair for key, pair in changed.items() if key not in allowed}
    if refused:
        lines = '; '.join(f'{key}: {_short(old)} -> {_short(new)}' for key, (old, new) in refused.items())
        raise ValueError(
            f'the workdir was made with another config ({lines}). Name another --workdir, or continue with the '
            f'change: --allow-config-change={",".join(refused)}'
        )


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def versions() -> dict:
    """Of what a result depends on."""
    names = ('diffusion', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')
    return {name: importlib.metadata.version(name) for name in names}


def commit() -> str | None:
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        answer = subprocess.run(
            ['git', 'describe', '--always', '--dirty', '--abbrev=40'],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
