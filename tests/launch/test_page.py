"""docs/launch.md shows what its commands print; `python -m tests.launch.test_page` writes it anew."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.launch import conftest

PAGE = conftest.ROOT / 'docs' / 'launch.md'
BLOCK = re.compile(r'^```\n\$ diffusion (launch [^\n]*)\n(.*?)\n```$', re.M | re.S)
# What is another on each machine, and what it is called on the page.
OWN = (
    (r'\btree [0-9a-f]{16}, \S+ \S+ packed', 'tree 0123456789abcdef, 2.4 MB packed'),
    (r'(tree-|"tree": ")[0-9a-f]{16}', r'\g<1>0123456789abcdef'),
    (r'[0-9a-f]{16}-(tree|agent|job)\b', r'0123456789abcdef-\1'),
    (r'(launched-by[=:] ?|--comment=)l[0-9a-f]{11}', r'\g<1>laaaabbbbccc'),
)


def printed(call):
    """What `diffusion CALL` prints, as on the page."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, 'HOME': home, 'USER': 'you', 'LOGNAME': 'you', 'PYTHONPATH': str(conftest.ROOT)}
        environment.pop('DIFFUSION_LAUNCH_HOME', None)
        argv = (sys.executable, '-m', 'diffusion.cli', *shlex.split(call))
        done = subprocess.run(argv, cwd=conftest.ROOT, env=environment, capture_output=True, text=True, check=True)
        text = done.stdout.rstrip().replace(sys.executable, '/home/you/.venv/bin/python')  # it may lie in the tree
        text = text.replace(home, '/home/you').replace(f'{conftest.ROOT}/', '/home/you/diffusion/')
    for pattern, name in OWN:
        text = re.sub(pattern, name, text)
    return text


def test_the_page_shows_what_is_printed():
    blocks = BLOCK.findall(PAGE.read_text(encoding='utf-8'))
    assert [call.split()[1] for call, _ in blocks] == ['tpu-vm', 'gke', 'slurm']
    for call, shown in blocks:
        assert printed(call) == shown, 'python -m tests.launch.test_page'


if __name__ == '__main__':
    text = PAGE.read_text(encoding='utf-8')
    Path(PAGE).write_text(
        BLOCK.sub(lambda found: f'```\n$ diffusion {found[1]}\n{printed(found[1])}\n```', text), encoding='utf-8'
    )
