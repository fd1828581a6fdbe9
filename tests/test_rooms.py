"""The rooms: which package may import which, read from the source."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# room: what it may import of this project, and of the outside beyond the standard library.
ROOMS = {
    'core': ({'core'}, {'jax', 'numpy'}),
    'nets': ({'nets'}, {'jax', 'numpy', 'flax'}),
    'data': (
        {'data'},
        {'numpy', 'absl', 'array_record', 'grain', 'tensorflow_datasets', 'PIL', 'fsspec', 'pyarrow', 'google'},
    ),
    'runtime': ({'runtime'}, {'jax', 'numpy', 'optax', 'orbax', 'grain', 'tensorboardX', 'rich', 'PIL'}),
    'evaluation': ({'evaluation', 'nets'}, {'jax', 'numpy'}),
}
# Runs on a laptop: of this project it may import what itself imports the standard library only.
LAUNCH = sorted((ROOT / 'launch').rglob('*.py'))
MODULES = sorted((ROOT / 'diffusion').rglob('*.py'))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path}: relative import'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


@pytest.mark.parametrize('room', ROOMS)
def test_rooms_import_only_what_they_may(room):
    inside, outside = ROOMS[room]
    crossings = []
    for path in (ROOT / 'diffusion' / room).rglob('*.py'):
        for name in imports(path):
            top, *rest = name.split('.')
            allowed = rest[0] in inside if top == 'diffusion' else top in outside | sys.stdlib_module_names
            if not allowed:
                crossings.append(f'{path.relative_to(ROOT)} imports {name}')
    assert not crossings


def test_only_build_and_programs_join_the_rooms():
    joined = {'build.py', 'wiring', 'programs', 'cli.py'}
    for path in MODULES:
        part = path.relative_to(ROOT / 'diffusion').parts[0]
        rooms = {name.split('.')[1] for name in imports(path) if name.startswith('diffusion.')} & set(ROOMS)
        if part not in joined and part not in ROOMS:
            assert not rooms, f'{path} imports {rooms}'


def test_launch_imports_the_standard_library_only():
    plain = [ROOT / 'diffusion' / f'{name}.py' for name in ('usage', 'ports', '__init__')]
    wrong = []
    for path in (*LAUNCH, *plain):
        for name in imports(path):
            top = name.split('.')[0]
            if top not in sys.stdlib_module_names | {'launch'} and name not in ('diffusion.usage', 'diffusion.ports'):
                wrong.append(f'{path.relative_to(ROOT)} imports {name}')
    assert LAUNCH and not wrong
    users = [path for path in MODULES if any(name.split('.')[0] == 'launch' for name in imports(path))]
    assert users == [ROOT / 'diffusion' / 'programs' / 'launch.py']


def test_the_agent_is_one_file_that_needs_nothing_of_this_project():
    names = {name.split('.')[0] for name in imports(ROOT / 'launch' / 'agent.py')}
    assert names <= sys.stdlib_module_names
    ast.parse((ROOT / 'launch' / 'agent.py').read_text(encoding='utf-8'), feature_version=(3, 8))


def test_nothing_unpickles():
    words = ('pickle.load', 'torch.load', 'allow_pickle=True')
    texts = {path: path.read_text(encoding='utf-8') for path in (*MODULES, *LAUNCH)}
    found = [f'{path}: {word}' for path, text in texts.items() for word in words if word in text]
    assert not found


def test_names_say_what_a_file_is():
    assert not [path for path in (*MODULES, *LAUNCH) if path.stem in {'utils', 'util', 'common', 'helpers', 'misc'}]


def test_neither_tensorflow_nor_torch_is_imported():
    names = [
        'diffusion.cli',
        *(f'diffusion.programs.{p.stem}' for p in (ROOT / 'diffusion/programs').glob('[a-z]*.py')),
    ]
    code = f'import {", ".join(names)}, sys; sys.exit(bool({{"tensorflow", "torch"}} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False).returncode == 0
