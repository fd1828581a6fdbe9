"""Buckets: the shapes that cut least, and a stream of batches of one shape in which every example has its turn."""

import io
import itertools
import pickle

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.data import buckets, pictures, pipeline, records, sources

SIZES = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 3), st.integers(24, 48), st.sampled_from([4, 8]))
def test_no_other_shapes_cut_less(pictures, count, side, multiple):
    """Against all subsets of the candidates."""
    known = buckets.candidates(side, multiple)
    lost = buckets.cut(pictures, known)
    least = min(
        lost[:, list(some)].min(1).sum()
        for number in range(1, count + 1)
        for some in itertools.combinations(range(len(known)), min(number, len(known)))
    )
    found = buckets.choose(np.array(pictures), count, side, multiple)
    mine = buckets.cut(pictures, found.sizes)
    assert mine[np.arange(len(pictures)), found.of].sum() == pytest.approx(least, abs=1e-9)
    np.testing.assert_array_equal(mine[np.arange(len(pictures)), found.of], mine.min(1))
    for bucket, ids in enumerate(found.members):
        assert found.cut[bucket] == pytest.approx(mine[ids, bucket].mean())
    assert len(found.sizes) <= count and set(found.of) == set(range(len(found.sizes)))
    assert len(set(found.sizes)) == len(found.sizes) and set(found.sizes) <= set(known)


@settings(max_examples=50, deadline=None)
@given(st.integers(8, 600), st.sampled_from([1, 2, 8, 16]))
def test_candidates_fill_the_square_and_no_more(side, multiple):
    if side < multiple:
        side = multiple
    known = buckets.candidates(side, multiple)
    assert known and sorted((w, h) for h, w in known) == sorted(known)
    for height, width in known:
        assert height % multiple == 0 == width % multiple
        assert height * width <= side**2 < min((height + multiple) * width, height * (width + multiple))
        assert max(height, width) <= buckets.LONGEST * min(height, width)
    if side % multiple == 0:
        assert (side, side) in known
    assert all(a * d < c * b for (a, b), (c, d) in itertools.pairwise(known))


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.integers(1, 500), st.integers(1, 500)), st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_what_is_counted_as_cut_is_what_decoding_cuts(picture, size):
    fit = pictures.Fit(image_size=size[0], width=size[1])
    lost = pictures.cut(picture[1], picture[0], fit)
    # Decoding cuts whole pixels, keeps one at least, and nothing where the picture has the size already.
    assert abs(lost - buckets.cut([picture], [size])[0, 0]) <= 1 / min(picture)


COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=5).map(tuple)


def drawn(source, *where):
    return pipeline.batch_ids(source.buckets, len(source), *where)


def source_of(of):
    """Numbers that know their own place and bucket, as a source in buckets of different sizes."""
    of = np.asarray(of)
    sizes = tuple((2, 1 + b) for b in range(of.max() + 1))

    def gather(indices, size):
        return {'image': np.broadcast_to(indices[:, None, None, None], (len(indices), *size, 1)).astype(np.float32)}

    found = buckets.Buckets(sizes, of, (0.0,) * len(sizes))
    made = records.Records(len(of), 'made', gather, list, buckets=lambda: found)
    return sources.Source((2, 2, 1), (), False, lambda: made, 'float32')


@settings(max_examples=100, deadline=None)
@given(COUNTS, st.integers(1, 50), st.integers(0, 2**31), st.integers(1, 6), st.data())
def test_every_example_has_its_turn_once_an_epoch_but_for_the_rest_that_fills_no_batch(
    counts, batch, seed, epochs, data
):
    of = np.repeat(np.arange(len(counts)), counts)
    source, schedule = source_of(of), buckets.Schedule(counts, batch, seed)
    total = sum(schedule.before(epochs))
    got = [drawn(source, k * batch, np.arange(batch), batch, seed) for k in range(total)]
    for ids, size in got:
        assert {source.buckets.sizes[bucket] for bucket in of[ids]} == {size}
    for epoch in range(1, epochs + 1):
        seen = np.zeros(len(of), int)
        for ids, _ in got[: sum(schedule.before(epoch))]:
            np.add.at(seen, ids, 1)
        for bucket, count in enumerate(counts):
            times = seen[of == bucket]
            # No example is seen an epoch's turn more, and the rest is less than a batch.
            assert times.max() <= epoch and 0 <= epoch * count - times.sum() < batch
            whole = times.sum() // count
            assert times.min() >= whole and times.max() <= whole + 1
    # Any process finds its part of any batch by itself.
    if total:
        number = data.draw(st.integers(0, total - 1))
        rows = np.array(sorted(data.draw(st.sets(st.integers(0, batch - 1), min_size=1))))
        part = drawn(source, number * batch + data.draw(st.integers(0, batch - 1)), rows, batch, seed)
        np.testing.assert_array_equal(part[0], got[number][0][rows])
        assert part[1] == got[number][1]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 100), st.integers(0, 99))
def test_one_bucket_is_the_stream_without_buckets(examples, batch, number, seed):
    ids, _ = drawn(source_of(np.zeros(examples, int)), number * batch, np.arange(batch), batch, seed)
    np.testing.assert_array_equal(ids, pipeline.example_ids(number * batch + np.arange(batch), examples, seed))


def test_a_batch_far_along_is_found_as_soon():
    schedule = buckets.Schedule((700, 30, 1), 64, 5)
    for number in (0, 10**6, 10**12):
        bucket, which = schedule.place(number)
        later = [schedule.place(number + i) for i in range(200)]
        assert later[0] == (bucket, which)
        for b in range(3):
            turns = [place[1] for place in later if place[0] == b]
            assert turns == list(range(turns[0], turns[0] + len(turns))) if turns else b == 2
        share = number * 64 * schedule.counts[bucket] / 731
        assert abs(which * 64 - share) <= 64 * 3 + 731


def test_batches_have_one_size_and_restart_anywhere():
    of = np.random.default_rng(0).integers(0, 3, 200)
    source = source_of(of)
    rows = [np.array([0, 3, 5]), np.array([1, 2, 4])]
    streams = [pipeline.batches(source, batch=6, seed=1, rows=part, start=0) for part in rows]
    later = pipeline.batches(source, batch=6, seed=1, start=7, offset=12)
    both = [[next(stream) for stream in streams] for _ in range(30)]
    shapes = set()
    for one, other in both:
        assert one['image'].shape == other['image'].shape and set(of[one['index']]) == set(of[other['index']])
        np.testing.assert_array_equal(one['image'][:, 0, 0, 0], one['index'])
        shapes.add(one['image'].shape[1:])
    assert shapes == {(2, 1, 1), (2, 2, 1), (2, 3, 1)}
    np.testing.assert_array_equal(next(later)['index'][rows[0]], both[9][0]['index'])
    for stream in (*streams, later):
        stream.close()


def test_an_image_is_cut_to_the_ratio_of_its_bucket_and_not_squeezed():
    """A disc stays a disc."""
    y, x = np.mgrid[:90, :160]
    disc = np.where((y - 44.5) ** 2 + (x - 79.5) ** 2 < 40**2, 255, 0).astype(np.uint8)
    png = io.BytesIO()
    PIL.Image.fromarray(disc).save(png, format='PNG')
    small = pictures.decode(png.getvalue(), pictures.Fit(image_size=24, width=40, channels=1))[..., 0] > 127
    assert abs(np.any(small, 0).sum() - np.any(small, 1).sum()) <= 1
    assert abs(np.any(small, 1).sum() - 80 * 24 / 90) <= 1


@pytest.mark.parametrize(
    'flags,say',
    [
        (dict(buckets=17, image_size=64), 'buckets=17: 1 to 16'),
        (dict(buckets=-1, image_size=64), 'buckets=-1: 1 to 16'),
        (dict(buckets=4, image_size=8), 'image_size=8, multiple=16'),
        (dict(buckets=4, image_size=64, multiple=0), 'multiple=0'),
        (dict(buckets=4), 'image_size=0'),
    ],
)
def test_buckets_that_cannot_be_are_refused(flags, say):
    with pytest.raises(ValueError, match=say):
        sources.tfds('emoji/faces_16', **flags)


@pytest.fixture
def folder(tmp_path):
    """Twelve gradients in two shapes, one of them turned by EXIF alone, and a file that is no picture."""
    for i in range(12):
        height, width = (40, 64) if i % 2 else (64, 40)
        rising = np.broadcast_to(np.linspace(0, 250, height)[:, None, None], (height, width, 3)).astype(np.uint8)
        image = PIL.Image.fromarray(rising)
        if i == 5:  # shown as 64 x 40 too
            exif = PIL.Image.Exif()
            exif[0x0112] = 6
            image.save(tmp_path / f'{i:02}.png', exif=exif)
        else:
            image.save(tmp_path / f'{i:02}.png')
    (tmp_path / '12.png').write_bytes(b'no picture')
    return str(tmp_path)


def test_a_folder_is_put_into_buckets_as_its_pictures_would_be_shown(folder):
    source = sources.images(folder, image_size=32, buckets=3, multiple=8, max_bad=0.2)
    found = source.buckets
    assert found.sizes == ((24, 40), (32, 32), (40, 24))
    # The one that cannot be read counts as a square, and shows another one there.
    assert [len(ids) for ids in found.members] == [5, 1, 7] and found.of[5] == 2 and found.of[12] == 1
    sent = pickle.loads(pickle.dumps(source))
    assert '_found' in vars(sent.open().buckets.__self__) and sent.fingerprint == source.fingerprint
    for opened, (size, ids) in itertools.product((source, sent), zip(found.sizes, found.members)):
        batch = opened.gather(ids, size)
        assert batch['image'].shape == (len(ids), *size, 3)
        np.testing.assert_array_equal(batch.get('bad', np.zeros(len(ids), bool)), ids == 12)
    whole = source.gather(np.arange(12))['image']
    assert whole.shape == (12, 40, 24, 3) and np.all(np.diff(whole[0, :, 12, 0].astype(int)) > 0)
    plain = sources.images(folder, image_size=32, max_bad=0.2)
    assert plain.buckets is None and plain.fingerprint != source.fingerprint
    stream = pipeline.batches(source, batch=4, seed=0)
    shapes = {next(stream)['image'].shape for _ in range(12)}
    stream.close()
    assert shapes == {(4, *size, 3) for size in found.sizes}


@pytest.mark.parametrize(
    'flags,say',
    [
        (dict(image_size=32, crop='pad'), "leave crop='pad' out"),
        (dict(image_size=32, memory='always'), "leave memory='always' out"),
        (dict(), 'image_size=0'),
    ],
)
def test_a_folder_that_cannot_be_put_into_buckets_is_refused(folder, flags, say):
    with pytest.raises(ValueError, match=say):
        sources.images(folder, buckets=2, **flags)
