"""How a number was made, as a hash: numbers of one protocol may be compared, others are shown with what differs."""

import hashlib
import json


def digest(fields: dict) -> str:
    """fields: JSON values. 16 hexadecimal digits, the same whatever the order of the keys."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def differences(old: dict, new: dict, prefix: str = '') -> dict[str, tuple]:
    """The fields that differ, 'section.key' to (old, new); None where one has no such field."""
    found = {}
    for key in dict.fromkeys((*old, *new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f'{prefix}{key}.')
        elif a != b:
            found[f'{prefix}{key}'] = (a, b)
    return found
