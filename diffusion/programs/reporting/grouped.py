"""Results of evaluations by their protocol: which may stand on one curve, and what sets the others apart."""

import dataclasses
import json

from diffusion.evaluation import protocol
from diffusion.programs.reporting import record

# What a protocol says that follows from the rest of it, where that differs too.
OUTCOMES = ('nfe', 'seeds', 'sha256')


@dataclasses.dataclass(frozen=True)
class Group:
    """Results of one run, metric and protocol, by step. fields: the protocol flat, 'section.key' to a JSON value."""

    fields: dict
    results: tuple[record.Evaluation, ...]


def groups(evaluations: list[record.Evaluation]) -> list[Group]:
    """The results of one metric by their protocols; of several of one step and protocol the last."""
    found = {}
    for one in evaluations:
        fields = _fields(one)
        found.setdefault(protocol.digest(fields), (fields, {}))[1][one.step] = one
    return [Group(fields, tuple(results[step] for step in sorted(results))) for fields, results in found.values()]


def _fields(one):
    asked = one.told.get('protocol')
    fields = dict(flat(asked)) if isinstance(asked, dict) else {}
    if 'protocol_hash' in one.told:
        return fields or {'protocol_hash': one.told['protocol_hash']}
    # Of a version whose likelihoods left the examples and the weights out of their protocol.
    data = one.told.get('data') if isinstance(one.told.get('data'), dict) else {}
    rest = {key: data.get(key) for key in ('fingerprint', 'num', 'seed')}
    return {**fields, 'weights': one.told.get('weights'), 'unit': one.told.get('unit'), **rest}


def flat(fields: dict, prefix: str = ''):
    """(key, value) pairs of nested dicts, keys joined by dots."""
    for key, value in fields.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def varying(many: list[Group]) -> list[str]:
    """The fields that set groups apart. A section's other keys are left out where its name says as much, and what
    follows from the other fields."""
    keys = list(dict.fromkeys(key for group in many for key in group.fields))
    found = [key for key in keys if len({spelt(group.fields.get(key)) for group in many}) > 1]
    named = [key for key in found if key.endswith('.name')]
    kept = [
        key
        for key in found
        if not any(key != name and key.startswith(name[:-4]) and _follows(many, key, [name]) for name in named)
    ]
    free = [key for key in kept if key not in OUTCOMES]
    return [key for key in kept if key in free or not _follows(many, key, free)]


def _follows(many, key, others):
    """Whether groups that are alike in `others` are alike in `key`."""
    seen = {}
    for group in many:
        seen.setdefault(tuple(spelt(group.fields.get(other)) for other in others), set()).add(
            spelt(group.fields.get(key))
        )
    return all(len(values) == 1 for values in seen.values())


def spelt(value) -> str:
    """A JSON value as something that can be compared and put into a set."""
    return json.dumps(value, sort_keys=True)
