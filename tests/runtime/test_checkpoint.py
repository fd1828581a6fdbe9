"""Checkpoints on disk: what is damaged is seen, what is half written is not there, what failed stops the run."""

import errno
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.runtime import checkpoint, manifest, rotation, store


def tree(step):
    return {'layer': {'kernel': jnp.full((64, 32), float(step)), 'bias': jnp.arange(32.0) * step}}


@pytest.fixture
def written(tmp_path):
    """The folder of steps 1, 2 and 3."""
    place = tmp_path / 'steps'
    with_closed(place, lambda saved: [saved.save(step, {'a': tree(step), 'b': tree(-step)}, {}) for step in (1, 2, 3)])
    return place


def with_closed(place, use, **options):
    saved = store.Store(place, **options)
    try:
        return use(saved)
    finally:
        saved.close()


def files(folder):
    return sorted(path for path in folder.rglob('*') if path.is_file() and path.stat().st_size)


def damage_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    'another byte': (damage_byte, 'has other contents'),
    'cut short': (lambda path: os.truncate(path, path.stat().st_size - 1), 'bytes, not'),
    'gone': (os.unlink, 'is missing'),
}


@pytest.mark.parametrize('hurt,say', DAMAGES.values(), ids=DAMAGES)
def test_every_hashed_file_that_is_damaged_is_named(written, hurt, say):
    step = written / '3'
    assert manifest.problems(step) == []
    hashed = manifest.read(step)['files']
    names = {path.relative_to(step).as_posix() for path in files(step)}
    assert {name.split('/')[0] for name in hashed} >= {'a', 'b'} and names - set(hashed) <= manifest.UNHASHED
    for name in (next(n for n in hashed if n.startswith(part) and hashed[n][0]) for part in ('a/', 'b/')):
        before = (step / name).read_bytes()
        hurt(step / name)
        assert [problem for problem in manifest.problems(step) if name in problem and say in problem]
        other = 'b' if name.startswith('a/') else 'a'
        assert manifest.problems(step, (other,)) == []
        (step / name).write_bytes(before)
    assert manifest.problems(step) == []


@pytest.mark.parametrize('hurt', [os.unlink, lambda path: os.truncate(path, 40)])
def test_a_step_without_a_readable_manifest_is_passed_over(written, hurt):
    hurt(written / '3' / manifest.FILE)
    step, said = store.newest_good(written)
    assert step == 2 and len(said) == 1 and 'step 3 is damaged' in said[0]
    damage_byte(next(path for path in files(written / '2' / 'b') if path.stat().st_size > 8))
    assert store.newest_good(written)[0] == 1 and store.newest_good(written, ('a',))[0] == 2


def test_damaged_steps_are_set_aside_and_written_again(tmp_path):
    saved = checkpoint.Checkpoints(tmp_path)
    place = tmp_path / checkpoint.FOLDER
    with_closed(place, lambda kept: [kept.save(step, {'a': tree(step)}, {}) for step in (5, 10)])
    damage_byte(next(path for path in files(place / '10') if path.stat().st_size > 1000))
    step, said = saved.settle()
    saved.close()
    assert step == 5 and 'step 10 is damaged' in said[0] and 'falls back to step 5' in said[1]
    assert (tmp_path / checkpoint.ASIDE / '10').is_dir() and store.steps(place) == [5]
    with_closed(place, lambda kept: kept.save(10, {'a': tree(10)}, {}))
    assert store.newest_good(place) == (10, [])


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(tmp_path):
    with_closed(tmp_path / checkpoint.FOLDER, lambda kept: kept.save(5, {'a': tree(5)}, {}))
    os.unlink(tmp_path / checkpoint.FOLDER / '5' / manifest.FILE)
    saved = checkpoint.Checkpoints(tmp_path)
    with pytest.raises(ValueError, match='no checkpoint that is whole'):
        saved.settle()
    saved.close()
    assert (tmp_path / checkpoint.FOLDER / '5').is_dir()


def test_half_a_save_is_not_there_and_is_cleaned_up(written):
    left = written / '4.orbax-checkpoint-tmp'
    (left / 'a').mkdir(parents=True)
    assert store.steps(written) == [1, 2, 3] and store.newest_good(written) == (3, [])
    with_closed(written, lambda saved: saved.save(5, {'a': tree(5)}, {}))
    assert not left.exists() and store.steps(written) == [1, 2, 3, 5]


def test_a_reader_changes_nothing(written):
    left = written / '4.orbax-checkpoint-tmp'
    left.mkdir()
    before = sorted(written.rglob('*'))
    with_closed(written, lambda saved: saved.restore(2, {'a': jax.eval_shape(lambda: tree(2))}), create=False)
    assert sorted(written.rglob('*')) == before


def test_a_save_that_fails_stops_the_run_with_its_own_error(written, monkeypatch):
    saved = store.Store(written)

    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(manifest, 'write', full)
    saved.save(4, {'a': tree(4)}, {})
    with pytest.raises(
        RuntimeError, match='step 4 could not be written.*No space left on device.*step 3 is the newest'
    ):
        for _ in range(600):
            saved.check()
            saved._watch.join(0.05)
    saved.close()
    assert store.newest_good(written) == (3, [])


def test_a_step_that_is_there_is_never_passed_over_in_silence(written):
    saved = store.Store(written)
    with pytest.raises(RuntimeError, match='step 2 was not saved'):
        saved.save(2, {'a': tree(2)}, {})
    saved.close()


def test_rotation_against_its_definition():
    values = {10: 0.5, 20: 0.1, 30: 0.3, 40: 0.3, 60: 0.9}
    ordered = range(10, 80, 10)
    for last, every, best in itertools.product((1, 2, 9), (0, 20, 30), (0, 1, 2, 9)):
        kept = rotation.Rule(last, every, best, lambda steps: {s: values[s] for s in steps if s in values}).kept(
            ordered
        )
        for step in ordered:
            newest = sum(other > step for other in ordered) < last
            better = [o for o in values if (values[o], -o) < (values.get(step), -step)] if step in values else None
            among = better is not None and len(better) < best
            assert (step in kept) == (newest or bool(every and step % every == 0) or among)
    assert rotation.Rule().kept(ordered) == set(ordered)


def test_rotation_removes_from_disk_what_it_says(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: 2.5, 6: 4.0, 7: 4.0}
    rule = rotation.Rule(last=2, every=4, best=1, values=lambda steps: {s: losses[s] for s in steps})
    with_closed(tmp_path, lambda saved: [saved.save(s, {'a': tree(s)}, {}) for s in losses], rule=rule)
    assert store.steps(tmp_path) == [2, 4, 6, 7]


def test_later_steps_are_forgotten_and_can_be_saved_again(written):
    def use(saved):
        saved.forget_after(1)
        assert saved.steps() == [1]
        saved.save(2, {'a': tree(20)}, {'again': True})
        saved.wait()
        return saved.restore(2, {'a': jax.eval_shape(lambda: tree(2))})['a'], saved.meta(2)

    restored, meta = with_closed(written, use)
    jax.tree.map(np.testing.assert_array_equal, restored, tree(20))
    assert meta == {'again': True}
