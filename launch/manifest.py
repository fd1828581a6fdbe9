"""Kubernetes manifests as YAML: mappings, lists, text, numbers and truth, each in one way only."""

import json
import re

# What YAML does not take as it is inside double quotes, beyond what JSON escapes: DEL, C1, separators, no-characters.
ODD = re.compile('[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]')
BARE = re.compile(r'[A-Za-z][-A-Za-z0-9_./]*')
WORDS = frozenset(['true', 'false', 'yes', 'no', 'on', 'off', 'null', 'y', 'n'])


def yaml(value, indent: int = 0) -> str:
    """Block style; text is quoted unless it can be nothing but a word. Raises TypeError for anything else."""
    pad = '  ' * indent
    if isinstance(value, dict) and value:
        return ''.join(f'{pad}{_scalar(key)}:{_below(item, indent)}' for key, item in value.items())
    if isinstance(value, list) and value:
        lines = (yaml(item, indent + 1) if _nested(item) else f'{pad}  {_scalar(item)}\n' for item in value)
        return ''.join(f'{pad}- {line[len(pad) + 2 :]}' for line in lines)
    return f'{pad}{_scalar(value)}\n'


def documents(*values) -> str:
    return '---\n'.join(yaml(value) for value in values)


def _nested(value):
    return isinstance(value, dict | list) and bool(value)


def _below(value, indent):
    if not _nested(value):
        return f' {_scalar(value)}\n'
    return '\n' + yaml(value, indent + isinstance(value, dict))


def _scalar(value):
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict | list) and not value:
        return '{}' if isinstance(value, dict) else '[]'
    if not isinstance(value, str):
        raise TypeError(f'{value!r} has no place in a manifest')
    if BARE.fullmatch(value) and value.lower() not in WORDS:
        return value
    return ODD.sub(lambda letter: f'\\u{ord(letter[0]):04x}', json.dumps(value, ensure_ascii=False))
