"""`diffusion evaluate compare` and `fetch`: files between machines."""

import hashlib
import json

import pytest

from diffusion.programs import fetching

RESULT = {'metric': 'fid', 'name': 'FID-40[classifier]', 'value': 3.5, 'standard_error': 0.25, 'weights': 'ema'}
PROTOCOL = {'count': 40, 'sampler': {'name': 'heun'}, 'steps': 18}


def written(path, **parts):
    path.write_text(json.dumps({**RESULT, 'protocol': PROTOCOL, 'step': 8, **parts}))
    return str(path)


def test_results_are_compared_by_their_protocols(call, tmp_path):
    first = written(tmp_path / 'a.json')
    same = call('evaluate', 'compare', first, written(tmp_path / 'b.json', value=2.5, step=16))
    assert same.returncode == 0 and 'may be compared' in same.stdout, same.stderr
    assert 'FID-40[classifier] 3.5 ± 0.25, ema weights of step 8' in same.stdout and '2.5' in same.stdout
    other = written(tmp_path / 'c.json', protocol={'count': 80, 'sampler': {'name': 'euler'}, 'steps': 18})
    told = call('evaluate', 'compare', first, other)
    assert told.returncode == 1 and 'not to be compared' in told.stdout
    assert 'count: 40 -> 80' in told.stdout and 'sampler.name: "heun" -> "euler"' in told.stdout
    assert 'steps' not in told.stdout
    kid = call('evaluate', 'compare', first, written(tmp_path / 'd.json', metric='kid'))
    assert kid.returncode == 1 and 'metric: "fid" -> "kid"' in kid.stdout
    (tmp_path / 'e.json').write_text('{"value": 3}')
    (tmp_path / 'f.json').write_text('{')
    for path, say in (('nowhere.json', 'there is no result'), ('e.json', 'is no result'), ('f.json', 'is no result')):
        refused = call('evaluate', 'compare', first, str(tmp_path / path))
        assert refused.returncode == 2 and say in refused.stderr and refused.stderr.count('\n') == 1


def test_weights_are_fetched_whole_or_not_at_all(call, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    mirror = tmp_path / 'mirror.pth'
    mirror.write_bytes(b'weights' * 1000)
    right = fetching.Published('https://nowhere.invalid/x.pth', hashlib.sha256(mirror.read_bytes()).hexdigest())
    monkeypatch.setitem(fetching.FILES, 'inception', right)
    there = tmp_path / '.cache' / 'diffusion'
    assert right.path == there / 'x.pth'
    for words, say in (
        (['inceptoin'], "did you mean 'inception'"),
        (['dinov2-s', f'--url={mirror.as_uri()}'], 'not b938bf1b'),
        (['inception', f'--url={mirror.as_uri()}.none'], 'cannot be fetched'),
        (['inception', '--url=nowhere'], 'unknown url type'),
    ):
        refused = call('evaluate', 'fetch', *words)
        assert refused.returncode == 2 and say in refused.stderr, refused.stderr
        assert not list(there.glob('*')) and not list(there.glob('.*'))
    done = call('evaluate', 'fetch', 'inception', f'--url={mirror.as_uri()}')
    assert done.returncode == 0 and right.sha256 in done.stdout, done.stderr
    assert right.path.read_bytes() == mirror.read_bytes()
    again = call('evaluate', 'fetch', 'inception')
    assert again.returncode == 2 and 'is there already' in again.stderr


@pytest.mark.parametrize('name', fetching.FILES)
def test_published_files_are_named_by_whole_hashes_and_https(name):
    file = fetching.FILES[name]
    assert len(bytes.fromhex(file.sha256)) == 32 and file.url.startswith('https://') and file.path.suffix == '.pth'
