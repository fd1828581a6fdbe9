"""What is packed: what git tracks and what it neither tracks nor ignores, the same bytes for the same contents."""

import io
import os
import subprocess
import tarfile

import pytest

from diffusion import usage
from launch import job as jobs
from launch import tree


def test_packs_tracked_and_new_files_and_not_ignored_ones(project, tmp_path):
    (project / 'new file.py').write_text('x')
    (project / 'runs').mkdir()
    (project / 'runs' / 'big').write_text('ignored')
    name, packed = tree.pack(project, tmp_path / 'trees')
    assert packed == {'.gitignore', 'configs/toy2d.py', 'new file.py', 'pyproject.toml'}
    with tarfile.open(tmp_path / 'trees' / f'{name}.tar.gz') as tar:
        assert set(tar.getnames()) == packed
        assert tar.extractfile('new file.py').read() == b'x'


def test_the_hash_follows_the_contents_alone(project):
    first = tree.contents(project)
    os.utime(project / 'pyproject.toml', (1, 1))
    again = tree.contents(project)
    assert tree.digest(again) == tree.digest(first) and tree.archive(again) == tree.archive(first)
    others = []
    for change in (
        lambda: (project / 'configs' / 'toy2d.py').write_text('other'),
        lambda: (project / 'configs' / 'toy2d.py').chmod(0o755),
        lambda: (project / 'configs' / 'toy2d.py').rename(project / 'configs' / 'toy.py'),
        lambda: os.symlink('configs', project / 'link'),
    ):
        change()
        others.append(tree.digest(tree.contents(project)))
    assert len({tree.digest(first), *others}) == 5


def test_links_and_names_come_through(project):
    name = 'ä b;$(x)\n.txt'
    (project / name).write_text('here')
    os.symlink('configs/toy2d.py', project / 'link')
    with tarfile.open(fileobj=io.BytesIO(tree.archive(tree.contents(project)))) as tar:
        assert tar.extractfile(name).read() == b'here' and tar.getmember('link').linkname == 'configs/toy2d.py'


@pytest.mark.parametrize(
    'name,text',
    [
        ('.env', 'A=1'),
        ('my-credentials.json', '{}'),
        ('deploy.pem', 'x'),
        # In two pieces each, or this file could not be packed.
        ('notes.txt', '-----BEGIN RSA ' + 'PRIVATE KEY-----'),
        ('sa.json', '{"private' + '_key": "-----"}'),
    ],
)
def test_what_looks_like_a_secret_is_not_packed(project, name, text):
    (project / name).write_text(text)
    with pytest.raises(usage.UsageError, match='looks like a secret'):
        tree.contents(project)
    assert name in tree.contents(project, (name,))
    (project / '.gitignore').write_text(f'{name}\n')
    assert name not in tree.contents(project)


def test_what_cannot_be_packed_is_one_line(project, tmp_path, monkeypatch):
    with pytest.raises(usage.UsageError, match='no working tree'):
        tree.contents(tmp_path / 'nowhere')
    os.symlink('/etc/passwd', project / 'out')
    with pytest.raises(usage.UsageError, match='links to /etc/passwd'):
        tree.contents(project)
    (project / 'out').unlink()
    monkeypatch.setattr(tree, 'MOST', 10)
    with pytest.raises(usage.UsageError, match='would be packed'):
        tree.contents(project)
    monkeypatch.undo()
    subprocess.run(('git', '-C', str(project), 'rm', '-qf', 'pyproject.toml'), check=True)
    with pytest.raises(usage.UsageError, match=r'no pyproject\.toml'):
        tree.contents(project)


def test_a_path_that_is_here_and_not_packed_is_refused(project):
    (project / 'runs').mkdir()
    _, packed = tree.pack(project, project / 'runs')
    jobs.check_paths(('train', '--config=configs/toy2d.py', '--config.data.path=/data', '--x=nowhere'), packed)
    jobs.check_paths(('train', '--config.data.path=configs'), packed)
    with pytest.raises(usage.UsageError, match='not packed'):
        jobs.check_paths(('train', '--config.data.path=runs'), packed)
