"""Results of `diffusion evaluate` in a workdir: written once, and held against those of another protocol."""

import json
from pathlib import Path

from diffusion.evaluation import protocol
from diffusion.programs import generated
from diffusion.runtime import ema, writer

SHOWN = 3  # other protocols that are told of


def free(args, name: str, step: int) -> Path:
    """Where a result goes. Raises ValueError where one is there and none may be replaced."""
    # The results of the main average have the plain name, which rotation and curves look for.
    of = '' if args.weights == ema.MAIN else f'_{Path(args.weights).name}'
    path = Path(args.workdir) / 'eval' / f'{name}{of}_step_{step}.json'
    if path.exists() and not args.overwrite:
        raise ValueError(f'{path} is there already: add --overwrite, or move it')
    return path


def write(args, found: list[generated.Result], step: int, context: dict, evaluations: float) -> None:
    """Prints and writes each result, and what of its protocol differs from results that are there."""
    for result in found:
        others = _others(Path(args.workdir) / 'eval', result)
        path = free(args, result.slug, step)
        report = {
            'metric': result.slug,
            'name': result.shown,
            **result.value,
            'note': result.note or None,
            'protocol': result.asked,
            'protocol_hash': generated.digest(result),
            'evaluations': evaluations,
        }
        writer.write_json(path, {**report, **context})
        print(generated.line(result))
        for name, old in others:
            changed = protocol.differences(old, result.asked)
            fields = '; '.join(f'{key}: {_short(a)} -> {_short(b)}' for key, (a, b) in changed.items())
            print(f'not to be compared with {name}, whose protocol is another: {fields}')
    print(f'written to {Path(args.workdir) / "eval"}, protocol {", ".join(generated.digest(one) for one in found)}')


def _others(folder, result):
    """(file, protocol) of results of this metric with other protocols, the newest of each."""
    known = {}
    for path in sorted(folder.glob(f'{result.slug}_*.json'), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            stored = json.loads(path.read_text(encoding='utf-8'))
            if stored['metric'] == result.slug and stored['protocol_hash'] != generated.digest(result):
                known.setdefault(stored['protocol_hash'], (path.name, dict(stored['protocol'])))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not one of ours, or of another version
    return list(known.values())[:SHOWN]


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f'{text[:57]}...'
