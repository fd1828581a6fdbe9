"""The real gcloud, where it is installed, takes the flags of every call: without an account it gets no further."""

import re
import shlex
import shutil
import subprocess

import pytest

from diffusion import cli

CALLS = (
    ('tpu-vm', '--type=v5e-16', '--zones=us-west4-a', '--spot', '--network=default', '--service-account=a@b.c'),
    ('tpu-vm', '--type=v5p-8', '--zones=us-west4-a', '--reserved', '--runtime-version=v2-alpha-tpuv5'),
    ('gke', '--type=v5e-16'),
)


@pytest.mark.slow
@pytest.mark.parametrize('words', CALLS)
def test_gcloud_takes_the_flags_of_every_call(words, project, capsys, tmp_path, monkeypatch):
    if not shutil.which('gcloud'):
        pytest.skip('needs the Google Cloud CLI, whose parser checks our flags: cloud.google.com/sdk')
    monkeypatch.setenv('CLOUDSDK_CONFIG', str(tmp_path / 'no account'))
    flags = ('--bucket=gs://my-bucket', '--max-hours=1', '--dry-run')
    assert cli.main(['launch', *words, *flags, '--', 'train', '--config=configs/toy2d.py']) == 0
    calls = {tuple(shlex.split(line)) for line in re.findall('^gcloud .*$', capsys.readouterr().out, re.M)}
    assert len(calls) >= (8 if words[0] == 'tpu-vm' else 1)
    for call in [*calls, ('gcloud', 'compute', 'tpus', 'tpu-vm', 'list', '--nonsense=1', '--zone=us-west4-a')]:
        more = ('--project=p',) if call[1] == 'compute' else ()
        said = subprocess.run((*call, *more), capture_output=True, text=True, check=False, cwd=tmp_path).stderr
        wrong = 'unrecognized arguments' in said or 'Invalid value' in said
        assert wrong == ('--nonsense=1' in call) and ('active account' in said or wrong or call[1] == 'storage'), said
