"""`diffusion evaluate compare`: two results side by side, and what of their protocols differs."""

import json
from pathlib import Path

from diffusion import usage
from diffusion.evaluation import protocol


def main(argv: list[str]) -> int:
    """Exit status 0 where both have one protocol, 1 where not, 2 where a file is no result."""
    parser = usage.Parser('evaluate compare', ' '.join(__doc__.split(': ', 1)[1].split()))
    parser.add_argument('results', nargs=2, metavar='JSON', help='of eval/ of a workdir')
    args, overrides = parser.parse(argv)
    with usage.checked():
        if overrides:
            raise ValueError('--config.* belongs to a run')
        both = [_read(path) for path in args.results]
    for path, found in zip(args.results, both):
        print(f'{path}: {_line(found)}')
    changed = protocol.differences(*(found['protocol'] for found in both))
    if not changed:
        print('of one protocol: they may be compared')
        return 0
    print('not to be compared, these parts of their protocols differ:')
    for key, (old, new) in changed.items():
        print(f'  {key}: {json.dumps(old, ensure_ascii=False)} -> {json.dumps(new, ensure_ascii=False)}')
    return 1


def _read(path):
    try:
        found = json.loads(Path(path).read_text(encoding='utf-8'))
        return found | {'value': float(found['value']), 'protocol': {'metric': found['metric'], **found['protocol']}}
    except FileNotFoundError as error:
        raise ValueError(f'there is no result {path}') from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is no result of diffusion evaluate ({type(error).__name__}: {error})') from error


def _line(found):
    error = found.get('standard_error')
    spread = '' if error is None else f' ± {error:.4g}'
    weights = f'{found.get("weights", "?")} weights of step {found.get("step", "?")}'
    return f'{found.get("name", found["metric"])} {found["value"]:.5g}{spread}, {weights}'
