"""Which examples are for validation: by their content, so that equal pictures are on one side."""

import collections
import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Split:
    """train, validation: indices, ascending; groups: how many pictures are there more than once; copies: the examples
    that show them; together: those of them that are for validation."""

    train: list[int]
    validation: list[int]
    groups: int
    copies: int
    together: int


def by_content(contents: Sequence[str], wanted: int) -> Split:
    """contents: a hash of each example, '' for those left out; wanted: examples for validation.

    Which they are depends on the contents alone, not on their order or names: the first by their hashes. Examples of
    one content stay together, so there are a few less than wanted where only large groups would fill the rest. Raises
    ValueError where nothing would be left to train with.
    """
    groups = collections.defaultdict(list)
    for index, content in enumerate(contents):
        if content:
            groups[content].append(index)
    total = sum(map(len, groups.values()))
    if wanted and wanted >= total:
        raise ValueError(f'{wanted} for validation of {total} examples: nothing is left to train with')
    validation = []
    for content in sorted(groups):
        if len(validation) + len(groups[content]) <= wanted:
            validation += groups[content]
        if len(validation) == wanted:
            break
    chosen = set(validation)
    train = [index for index, content in enumerate(contents) if content and index not in chosen]
    shared = {contents[index] for index in train} & {contents[index] for index in validation}
    assert not shared, 'equal pictures on both sides'
    many = [group for group in groups.values() if len(group) > 1]
    together = sum(len(group) for group in many if group[0] in chosen)
    return Split(train, sorted(validation), len(many), sum(map(len, many)), together)
