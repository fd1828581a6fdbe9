"""The manifests against the schemas of Kubernetes and JobSet; YAML against another reader."""

import math

import kubernetes_validate
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kubeflow_trainer_api import models

from diffusion import usage
from launch import hardware, jobset, manifest, memory
from launch import job as jobs

TEXT = st.text(st.characters(exclude_categories=['Cs']), max_size=12)
VALUES = st.recursive(
    TEXT | st.integers(-(10**9), 10**9) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(VALUES)
@example({'a': ['no', '1e3', '', '0x1', 'null', '~', '- x', 'a: b', '#', '\x85\u2028\x7f\ufeff', {'b': []}, [[1], {}]]})
def test_yaml_reads_back_as_it_was(value):
    assert yaml.safe_load(manifest.yaml(value)) == value


@pytest.mark.parametrize('value', [None, 1.5, {'a': None}, [object()]])
def test_what_has_no_one_way_of_writing_is_refused(value):
    with pytest.raises(TypeError):
        manifest.yaml(value)


def made(tmp_path, **fields):
    known = dict(name='toy', target='gke', words=('train',), tree='abc', bucket='my-bucket', max_hours=24.0)
    return memory.Job(jobs.Spec(**{**known, **fields}), memory.State(owner='me'), tmp_path, None, print)


SHAPES = {
    'tpu': dict(accelerator='v5e-16', capacity='spot', secrets=('TOKEN', 'OTHER')),
    'slices': dict(accelerator='tpu7x:4x4x4', slices=2, service_account='trainer'),
    'gpu': dict(accelerator='nvidia-h100-80gb', hosts=2, gpus=8),
}


@pytest.mark.parametrize('shape', SHAPES)
def test_jobset_and_core_schemas_accept_the_manifests(tmp_path, shape):
    """The strict schemas refuse unknown keys; of JobSet's own model a key that it does not know does not come back."""
    job = made(tmp_path, **SHAPES[shape])
    found = yaml.safe_load(manifest.yaml(jobset.jobset(job)))
    model = models.JobsetV1alpha2JobSet.from_dict(found)
    assert model.spec.to_dict() == found['spec'] and set(found) == {'apiVersion', 'kind', 'metadata', 'spec'}
    (replicated,) = found['spec']['replicatedJobs']
    meta = {'name': 'toy', **found['metadata'], **replicated['template'].get('metadata', {})}
    batch = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': meta, 'spec': replicated['template']['spec']}
    kubernetes_validate.validate(batch, '1.34', strict=True)
    if job.spec.secrets:
        secret = jobset.secret(job.spec, 'me', {'TOKEN': 'x', 'OTHER': 'y'})
        kubernetes_validate.validate(yaml.safe_load(manifest.yaml(secret)), '1.34', strict=True)


def test_the_schemas_would_find_a_wrong_key(tmp_path):
    found = jobset.jobset(made(tmp_path, **SHAPES['tpu']))
    found['spec']['maxRestarts'] = 3
    assert models.JobsetV1alpha2JobSet.from_dict(found).spec.to_dict() != found['spec']
    pod = found['spec']['replicatedJobs'][0]['template']['spec']
    pod['template']['spec']['containers'][0]['comand'] = ['x']
    with pytest.raises(kubernetes_validate.ValidationError):
        batch = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'toy'}, 'spec': pod}
        kubernetes_validate.validate(batch, '1.34', strict=True)


def test_a_slice_gives_every_chip_to_one_pod(tmp_path):
    """Requests of all pods together are all chips of the slice, of every type there is."""
    for generation, kind in hardware.GENERATIONS.items():
        for chips in hardware.FLAT if kind.flat else hardware.DEEP:
            name = f'{generation}-{chips * kind.counted}'
            part = hardware.tpu(name)
            assert math.prod(map(int, part.topology.split('x'))) == chips == part.hosts * part.chips_a_host
            spec = jobset.jobset(made(tmp_path, accelerator=name))['spec']['replicatedJobs'][0]['template']['spec']
            (container,) = spec['template']['spec']['containers']
            assert spec['completions'] * int(container['resources']['limits']['google.com/tpu']) == chips


@pytest.mark.parametrize(
    'name,api,hosts',  # cloud.google.com/tpu/docs/v5e, /v5p, /v4, /v6e: names and numbers of VMs
    [
        ('v5e-16', 'v5litepod-16', 4),
        ('v5litepod-8', 'v5litepod-8', 1),
        ('v5e:16x16', 'v5litepod-256', 64),
        ('v6e-8', 'v6e-8', 1),
        ('v5p-128', 'v5p-128', 16),
        ('v5p:4x4x8', 'v5p-256', 32),
        ('v4-8', 'v4-8', 1),
        ('v4-32', 'v4-32', 4),
    ],
)
def test_names_and_hosts_of_tpus(name, api, hosts):
    part = hardware.tpu(name)
    assert (part.api, part.hosts) == (api, hosts)


@pytest.mark.parametrize('name', ['v5e-17', 'v5e:4x4x4', 'v9-8', 'v5p-9', 'v5e:x', 'v4:4x4'])
def test_a_tpu_that_is_not_is_one_line(name):
    with pytest.raises(usage.UsageError) as caught:
        hardware.tpu(name)
    assert '\n' not in str(caught.value)
