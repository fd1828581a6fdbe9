"""`diffusion report`: what stands on the page is what lies in the workdir."""

import base64
import hashlib
import io
import json
import math
import re
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion import build
from diffusion.programs import drawing, opening, page
from diffusion.programs.reporting import axes, chart, record, sweeps, thin
from tests.programs import pages

HOSTILE = '</script><script>alert("1")</script><img src=x onerror=alert(2)> \x00\ud800 &amp; "\'>'


def written(folder, rows=(), steps=1000, **parts):
    """A run that was never trained: its config.json and metrics.jsonl. parts: further sections of its config."""
    config = {
        'data': {'name': 'emoji', 'image_size': 16},
        'process': {'name': 'VE', 'sigma_max': 80.0},
        'optimizer': {'name': 'adam', 'lr': 1e-3, 'warmup_images': 640, 'decay_images': 0},
        'train': {'steps': steps, 'batch': 64},
        **parts,
    }
    facts = {'shape': [16, 16, 3], 'examples': 137, 'dtype': 'uint8', 'fingerprint': 'f' * 64}
    about = {'config': config, 'facts': facts, 'versions': {'jax': '0.0.1'}, 'commit': None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(about), encoding='utf-8')
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return folder


def evaluated(folder, step, value, metric='fid', name='FID-64', **asked):
    """A result of `diffusion evaluate` whose protocol is `asked`."""
    asked = {'metric': metric, 'steps': 18, 'guidance': {'name': 'classifier_free', 'scale': 2.0}, **asked}
    mark = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    spread = {'standard_error': 0.5, 'interval': [value - 1, value + 1]}
    told = {'metric': metric, 'name': name, 'value': value, **spread, 'step': step, 'weights': 'ema', 'note': None}
    (folder / 'eval').mkdir(exist_ok=True)
    path = folder / 'eval' / f'{metric}_{mark}_step_{step}.json'
    path.write_text(json.dumps({**told, 'protocol': asked, 'protocol_hash': mark}))


@pytest.fixture
def report(call, tmp_path):
    """report(folder, *flags) -> the page, made without the model."""

    def make(folder, *flags):
        out = tmp_path / 'out' / f'{folder.name}.html'
        done = call('report', f'--workdir={folder}', f'--out={out}', '--no-model', *flags)
        assert done.returncode == 0 and done.stdout.startswith(f'written to {out}'), done.stderr
        return pages.Page(out)

    return make


def numbers(svg, log):
    """The curves of a plot as numbers, read off its axes like a reader does: from its first and last tick."""
    across, up = pages.ticks(svg, 'xtick'), pages.ticks(svg, 'ytick')

    def read(place, ticks, log):
        (p0, v0), (p1, v1) = ticks[0], ticks[-1]
        if log:
            v0, v1 = math.log(v0), math.log(v1)
        value = v0 + (place - p0) / (p1 - p0) * (v1 - v0)
        return math.exp(value) if log else value

    return [[(read(x, across, False), read(y, up, log)) for x, y in curve] for curve in pages.curves(svg)]


def test_points_of_a_plot_are_the_values_that_were_logged(report, tmp_path):
    steps = np.arange(50, 1001, 50)
    loss, wait = np.exp(-steps / 150.0), 0.2 + 0.1 * np.cos(steps / 100)
    rows = [{'step': int(s), 'time': 1e9 + s, 'loss': a, 'data_wait': b} for s, a, b in zip(steps, loss, wait)]
    found = report(written(tmp_path / 'run', rows))
    for title, values, log in (('Loss', loss, True), ('Share of the time spent waiting for data', wait, False)):
        (svg,) = found.plots(title)
        (curve,) = numbers(svg, log)
        x, y = np.array(curve).T
        np.testing.assert_allclose(x, steps, atol=0.1)
        np.testing.assert_allclose(y, values, **({'rtol': 2e-3} if log else {'atol': 2e-4}))
        assert svg.find(f'{pages.SVG}desc').text.startswith(f'{axes.number(values[0])} at step 50')
        hovers = [title.text for rect in svg.iter(f'{pages.SVG}rect') for title in rect]
        assert hovers[3] == f'step 200\n{axes.number(values[3])}'


def test_thousands_of_lines_are_thinned_and_keep_their_extremes_and_gaps(report, tmp_path):
    rng = np.random.default_rng(0)
    loss = rng.uniform(1, 2, 20_000).tolist()
    loss[7777], loss[12345] = 2.9, 0.3
    loss[5000:5010] = [None] * 10  # what was not finite
    rows = [{'step': i + 1, 'loss': value} for i, value in enumerate(loss)]
    found = report(written(tmp_path / 'run', rows, steps=20_000))
    (svg,) = found.plots('Loss')
    (curve,) = numbers(svg, False)
    assert len(curve) < 5 * thin.BUCKETS
    y = [value for _, value in curve]
    assert max(y) == pytest.approx(2.9, abs=0.01) and min(y) == pytest.approx(0.3, abs=0.01)
    assert any(abs(x - 7778) < 30 for x, value in curve if value > 2.5)
    marks = [path for path in svg.iter(f'{pages.SVG}path') if path.get('class') == 'bad']
    drawn = next(path for path in svg.iter(f'{pages.SVG}path') if 'line' in path.get('class'))
    assert len(marks) == 1 and drawn.get('d').count('M') == 2
    assert 'not finite' in svg.find(f'{pages.SVG}desc').text


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), min_size=1, max_size=300), st.integers(1, 20))
def test_thinning_keeps_ends_least_greatest_and_some_of_what_is_not_finite(values, buckets):
    kept = thin.points(values, buckets)
    assert kept == sorted(set(kept)) and kept[0] == 0 and kept[-1] == len(values) - 1
    assert len(kept) <= 5 * buckets
    some = [values[i] for i in kept]
    finite = [v for v in values if math.isfinite(v)]
    if finite:
        taken = [v for v in some if math.isfinite(v)]
        assert min(taken) == min(finite) and max(taken) == max(finite)
    assert any(map(math.isnan, some)) == any(map(math.isnan, values))


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e8, 1e8), st.floats(1e-6, 1e8), st.booleans())
def test_ticks_are_inside_ascend_and_their_labels_say_the_number(low, size, log):
    values = [1e-9 + abs(low), 1e-9 + abs(low) + size] if log else [low, low + size]
    axis = axes.span(values, 0, 100, log)
    ticks = axis.ticks()
    assert ticks == sorted(set(ticks)) and len(ticks) <= 14
    assert all(-1e-6 <= axis.place(tick) <= 100 + 1e-6 for tick in ticks)
    said = [axes.label(tick) for tick in ticks]
    assert [float(label.replace(',', '')) for label in said] == pytest.approx(ticks, rel=1e-5)
    assert len(set(said)) == len(ticks) >= 2
    assert 0 <= axis.place(values[0]) <= axis.place(values[1]) <= 100


def test_whatever_a_run_says_is_text_and_nothing_can_be_fetched(report, tmp_path):
    rows = [{'step': 1, 'loss': 1.0, HOSTILE: 2.0, f'loss_sigma_0_{HOSTILE}': 1.0}]
    folder = written(tmp_path / 'a"><script>b', rows, data={'name': HOSTILE, 'path': HOSTILE})
    evaluated(folder, 1, 3.0, name=HOSTILE, weights=HOSTILE, **{HOSTILE: 1})
    evaluated(folder, 1, 4.0, name=HOSTILE, weights='raw')
    other = written(tmp_path / 'other', rows, data={'name': 'x' + HOSTILE})
    found = report(folder, f'--against={other}')
    (script,) = found.scripts
    mark = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(meta['content'] for meta in found.metas if meta.get('http-equiv') == 'Content-Security-Policy')
    assert policy.startswith("default-src 'none'") and f"script-src 'sha256-{mark}'" in policy
    assert found.text.count('<script') == 1 and '<img' not in found.text and 'onerror=alert' in ''.join(found.words)
    assert all(address.startswith(('#', 'data:')) for address in found.addresses)
    assert not re.search(r'url\(|@import|https?://(?!www\.w3\.org/2000/svg)', found.text)


def test_runs_that_have_hardly_begun_and_numbers_that_are_none(report, tmp_path):
    empty = report(written(tmp_path / 'empty', steps=500))
    assert 'nothing is logged yet; 500 steps are planned' in empty.words
    assert not empty.svgs and 'Nothing has been evaluated yet' in empty.sections['Metrics']

    rows = [{'step': 10, 'time': 1e9, 'loss': None, 'grad_norm': None, 'skipped': 1.0}]
    folder = written(tmp_path / 'sick', rows)
    with (folder / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 20, "loss": NaN, "grad_norm": Infinity, "skipped": 1.0}\n[1]\n{"step": 30, "lo')
    evaluated(folder, 10, math.nan)
    evaluated(folder, 20, math.inf)
    (folder / 'eval' / 'notes.json').write_text('{"metric": "fid"}')
    sick = report(folder)
    assert any(word.startswith('under way or stopped: 20 of 1,000 steps') for word in sick.words)
    (loss,) = sick.plots('Loss')
    assert not pages.curves(loss) and loss.find(f'{pages.SVG}desc').text == 'no finite value'
    assert 'notes.json is no result of diffusion evaluate' in sick.sections['What it is']
    assert ['FID-64', '10', 'nan'] in [row[:3] for row in sick.rows]


def test_one_protocol_is_one_curve_and_others_say_what_differs(report, tmp_path):
    folder = written(tmp_path / 'run', [{'step': 500, 'loss': 1.0}])
    for step, value in ((100, 50.0), (200, 20.0), (300, 10.0)):
        evaluated(folder, step, value)
        evaluated(folder, step, value + 5, steps=9, guidance={'name': 'none'})
    evaluated(folder, 300, 99.0, steps=6)
    bpd = {'metric': 'bpd', 'value': 3.5, 'standard_error': 0.1, 'unit': 'bits/dim', 'step': 300, 'weights': 'ema'}
    (folder / 'eval' / 'bpd_step_300.json').write_text(json.dumps({**bpd, 'protocol': {'probes': 1}}))
    found = report(folder)
    (svg,) = found.plots('FID-64')
    one, two = numbers(svg, False)
    np.testing.assert_allclose(sorted([one[0][1], two[0][1]]), [50, 55], atol=0.1)
    np.testing.assert_allclose([x for x, _ in one], [100, 200, 300], atol=0.1)
    assert len([path for path in svg.iter(f'{pages.SVG}path') if 'spread' in path.get('class')]) == 6
    assert 'steps 18, guidance classifier_free' in found.words and 'steps 9, guidance none' in found.words
    assert '1 more protocols are in the list' in found.sections['Metrics']
    rows = [row[:4] for row in found.rows]
    assert ['FID-64', '300', '99', '98 to 100'] in rows and ['bpd', '300', '3.5', '3.304 to 3.696'] in rows


def test_sweeps_are_heat_maps_whose_cells_are_the_results(report, tmp_path):
    folder = written(tmp_path / 'run')
    scales, counts = (1.0, 1.5, 3.0), (6, 18)
    values = {(scale, steps): 10 * scale + 1 / steps for scale in scales for steps in counts}
    del values[3.0, 6]
    for (scale, steps), value in values.items():
        evaluated(folder, 70, value, steps=steps, nfe=2 * steps - 1, guidance={'name': 'cfg', 'scale': scale})
    (svg,) = [svg for svg in report(folder).svgs if svg.find(f'{pages.SVG}title').text == 'FID-64, step 70']
    texts = [
        (text.get('class'), float(text.get('x')), float(text.get('y')), text.text)
        for text in svg.iter(f'{pages.SVG}text')
    ]
    cells = [each for each in texts if each[0] == 'value']
    heads = [each for each in texts if each[0] is None]

    def under(cell):
        """(scale, steps) of a cell: the head above or below it and the one beside it."""
        column = next(text for _, x, _, text in heads if x == pytest.approx(cell[1], abs=0.5))
        row = next(text for _, _, y, text in heads if y == pytest.approx(cell[2], abs=0.5))
        known = {column: 'x', row: 'y'}
        assert len(known) == 2
        return (float(row), int(column)) if column in ('6', '18') else (float(column), int(row))

    assert {under(cell): cell[3] for cell in cells} == {key: axes.number(value) for key, value in values.items()}
    assert len([rect for rect in svg if rect.get('class') == 'missing']) == 1
    strengths = {float(rect.get('fill-opacity')) for rect in svg if rect.get('class') == 'cell'}
    assert len(strengths) == 5 and max(strengths) == 0.5

    for scale in (2.0, 4.0, 8.0):
        evaluated(folder, 80, scale**2, guidance={'name': 'cfg', 'scale': scale})
    (line,) = [svg for svg in report(folder).svgs if svg.find(f'{pages.SVG}title').text == 'FID-64, step 80']
    np.testing.assert_allclose(numbers(line, False)[0], [(2, 4), (4, 16), (8, 64)], atol=0.1)


def test_another_run_lies_under_the_curves_and_its_config_beside(report, tmp_path):
    rows = [{'step': step, 'loss': 2.0 / step, 'loss_sigma_0_0-1': 1.0} for step in (1, 2, 4)]
    folder = written(tmp_path / 'mine', rows)
    other = written(tmp_path / 'theirs', [{**row, 'loss': 1.0} for row in rows], steps=77, extra={'key': 'value'})
    evaluated(folder, 4, 5.0)
    evaluated(other, 4, 6.0)
    found = report(folder, f'--against={other}')
    assert ['train.steps', '1000', '77'] in found.rows and ['extra', 'none', 'key value'] in found.rows
    assert len([row for row in found.rows if row[:1] == ['train.batch']]) == 1  # of the config, not of what differs
    (svg,) = found.plots('Loss')
    mine, theirs = numbers(svg, False)
    np.testing.assert_allclose([y for _, y in mine], [2, 1, 0.5], atol=0.01)
    np.testing.assert_allclose([y for _, y in theirs], 1, atol=0.01)
    dashed = [path for path in svg.iter(f'{pages.SVG}path') if 'dashed' in path.get('class')]
    assert len(dashed) == 1 and 'theirs' in found.words and len(pages.curves(found.plots('FID-64')[0])) == 2
    same = report(folder, f'--against={folder}')
    assert 'have the same config' in same.sections['Differences']


def test_starts_incidents_and_hours(report, tmp_path):
    times = [1000, 1600, 2200, 9000, 9600]
    folder = written(tmp_path / 'run', [{'step': i + 1, 'time': time, 'loss': 1.0} for i, time in enumerate(times)])
    devices = {'platform': 'gpu', 'kind': 'A<100>', 'count': 8}
    starts = [{'step': 0, 'time': 400, 'hosts': ['one'], 'devices': devices, 'cores': 4}]
    starts.append({**starts[0], 'step': 3, 'time': 8400, 'hosts': ['two', 'three']})
    (folder / 'starts.jsonl').write_text('\n'.join(map(json.dumps, starts)) + '\n{"st')
    place = folder / 'incidents' / '0000002'
    place.mkdir(parents=True)
    layers = [['blocks/<b>', 'nan']]
    evidence = {'step': 2, 'checkpoint': 0, 'ids': [1], 'metrics': {'loss': 'nan'}, 'layers': layers, 'time': 1600}
    (place / 'incident.json').write_text(json.dumps(evidence))
    (folder / 'incidents' / '0000003').mkdir()
    (folder / 'incidents' / '0000003' / 'incident.json').write_text('{')
    # From 400 to 2200 and from 8400 to 9600.
    assert record.hours(record.read(str(folder))) == pytest.approx((1800 + 1200) / 3600)
    found = report(folder)
    said = found.sections['Incidents and restarts']
    assert 'Started 2 times.' in said and '2 skipped steps are kept' in said and f'--replay={place}' in said
    assert ['2', '1970-01-01 00:26:40', 'nan', 'blocks/<b> nan', 'no'] in found.rows
    assert found.rows[-1][0] == '0000003' and 'is damaged' in found.rows[-1][2]
    assert ['hardware', '8 × gpu (A<100>), 4 cores a host, ?; hosts two, three'] in found.rows
    assert ['hours', '0.83 of training'] in found.rows


def test_colours_can_be_read_in_light_and_dark():
    """Contrast of WCAG 2.1: text at least 4.5 : 1, what is drawn 3 : 1."""
    styles = page.STYLE + chart.STYLE + sweeps.STYLE
    light, dark = {}, {}
    for block in re.findall(r'(@media [^{]*\{ )?:root \{([^}]*)\}', styles):
        (dark if block[0] else light).update(re.findall(r'(--\w+): (#\w{6})', block[1]))
    assert set(light) == set(dark) >= {f'--c{i}' for i in range(chart.COLOURS)}

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    def contrast(a, b):
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    def mixed(over, under, share):
        parts = [(int(over[i : i + 2], 16), int(under[i : i + 2], 16)) for i in (1, 3, 5)]
        return '#' + ''.join(f'{round(share * a + (1 - share) * b):02x}' for a, b in parts)

    for mode in (light, dark):
        for name in ('--ink', '--soft', '--good', '--bad'):
            assert contrast(mode[name], mode['--page']) >= 4.5, name
        for i in range(chart.COLOURS):
            assert contrast(mode[f'--c{i}'], mode['--page']) >= 3, i
        assert contrast(mode['--ink'], mixed(mode['--c0'], mode['--page'], 0.5)) >= 4.5  # the strongest cell


def test_a_trained_run_with_its_strips(call, trained, data_dir, monkeypatch, tmp_path, caplog):
    """The page of a run as it is made where nothing is asked for."""
    monkeypatch.setenv('TFDS_DATA_DIR', data_dir)
    done = call('report', f'--workdir={trained}')
    assert done.returncode == 0, done.stderr
    assert [record.getMessage() for record in caplog.records if record.name == 'absl'] == []
    found = pages.Page(trained / 'report.html')
    assert 'Not to be had here' not in found.text and 'finished: 8 of 8 steps' in found.words
    pictures = [PIL.Image.open(io.BytesIO(base64.b64decode(source.partition(',')[2]))) for source in found.images]
    sheet, *small = pictures
    stored = PIL.Image.open(trained / 'samples' / 'step_0000008.png')
    np.testing.assert_array_equal(np.asarray(sheet), np.asarray(stored))
    # Of each of three: eight levels of the forward process; of x and of D(x), as many as the sampler visits.
    every = np.stack([np.asarray(picture) for picture in small])
    noised, drawn_rows = every[:24].reshape(3, 8, 16, 16, 3), every[24:].reshape(6, -1, 16, 16, 3)

    config, facts = opening.read(str(trained))
    data = build.source(config)
    shown = data.gather(np.array([0, 68, 136]))
    np.testing.assert_array_equal(noised[:, 0], shown['image'])
    # A variance exploding process ends at sigma 80: noise that knows nothing of the image.
    noise = noised[:, -1].astype(float).ravel()
    assert abs(np.corrcoef(noise, shown['image'].astype(float).ravel())[0, 1]) < 0.1
    # The sample at the end is what `diffusion sample` draws of that seed and prompt.
    grid = opening.devices(str(trained), config, 3)
    run = build.experiment(config, facts)
    weights, _ = opening.weights(str(trained), run, grid, 'ema')
    artist = drawing.artist(run, config, grid, 3)
    cond = drawing.conditions(run, 3, prompts=shown['caption'])
    (drawn,) = artist.draw(weights, np.arange(3), cond)
    for x, denoised, sample in zip(drawn_rows[::2], drawn_rows[1::2], drawn.x):
        assert np.abs(x[-1].astype(int) - sample).max() <= 2
        np.testing.assert_array_equal(x[-1], denoised[-1])
        assert np.abs(x[0].astype(int) - denoised[0]).mean() > 10
    assert all(caption in found.words for caption in shown['caption'])
    start = json.loads((trained / 'starts.jsonl').read_text())
    assert start['step'] == 0 and start['devices']['platform'] == 'cpu'
    assert f'host {start["hosts"][0]}' in ''.join(found.words)

    wrong = call('report', f'--workdir={trained}', '--config.net.width=9')
    assert wrong.returncode == 2 and 'fixed by the training' in wrong.stderr

    # A page of ours is replaced, another file is not; without data or checkpoint the rest is told.
    bare = tmp_path / 'bare'
    shutil.copytree(trained, bare, ignore=shutil.ignore_patterns('checkpoints'))
    config = json.loads((bare / 'config.json').read_text())
    config['facts']['fingerprint'] = 'another'
    (bare / 'config.json').write_text(json.dumps(config))
    again = call('report', f'--workdir={bare}')
    assert again.returncode == 0, again.stderr
    found = pages.Page(bare / 'report.html')
    assert 'not those of the training' in found.sections['The forward process']
    assert 'holds no complete checkpoint' in found.sections['The reverse process']
    assert found.plots('Loss') and len(found.images) == 1


def test_points_are_clouds(call, points, tmp_path):
    out = tmp_path / 'points.html'
    done = call('report', f'--workdir={points}', f'--out={out}')
    assert done.returncode == 0, done.stderr
    found = pages.Page(out)
    assert 'Not to be had here' not in found.text
    clouds = [svg for svg in found.svgs if len(svg.findall(f'{pages.SVG}circle')) == 512]
    assert len(clouds) == 3 * 8
    # The law of the mixture: eight modes on a circle around the middle. The data first, the samples last of their row.
    for cloud in (clouds[0], clouds[15]):
        x, y = (np.array([float(dot.get(name)) for dot in cloud.iter(f'{pages.SVG}circle')]) for name in ('cx', 'cy'))
        radius, angle = np.hypot(x - x.mean(), y - y.mean()), np.arctan2(y - y.mean(), x - x.mean())
        assert set(np.round(angle / (np.pi / 4)).astype(int) % 8) == set(range(8))
        assert np.mean(np.abs(radius / radius.mean() - 1) < 0.25) > 0.9


def test_bad_calls_are_one_line_and_write_nothing(call, tmp_path):
    run = written(tmp_path / 'run')
    (tmp_path / 'empty').mkdir()
    damaged = written(tmp_path / 'damaged')
    (damaged / 'config.json').write_text('{"config": [1')
    mine = tmp_path / 'mine.html'
    mine.write_text('my own notes')
    before = sorted(tmp_path.rglob('*'))
    for flags, say in (
        ([], '--workdir'),
        ([f'--workdir={tmp_path / "none"}'], 'there is no workdir'),
        ([f'--workdir={tmp_path / "empty"}'], 'holds no config.json'),
        ([f'--workdir={damaged}'], 'is damaged'),
        ([f'--workdir={run}', f'--against={damaged}'], 'is damaged'),
        ([f'--workdir={run}', f'--out={mine}'], 'no report: name another --out, or add --overwrite'),
        ([f'--workdir={run}', f'--out={tmp_path / "empty"}'], 'is a folder'),
        ([f'--workdir={run}', f'--out={mine / "x.html"}'], 'mine.html'),
        ([f'--workdir={run}', '--outt=x'], "'--outt'"),
        ([f'--workdir={run}', '--config.runtime.platform=cpu'], '--no-model leaves them out'),
    ):
        done = call('report', *flags, '--no-model')
        assert done.returncode == 2 and say in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert sorted(tmp_path.rglob('*')) == before and mine.read_text() == 'my own notes'
    assert call('report', f'--workdir={run}', f'--out={mine}', '--no-model', '--overwrite').returncode == 0
    assert call('report', f'--workdir={run}', f'--out={mine}', '--no-model').returncode == 0


@pytest.mark.skipif(not shutil.which('chromium'), reason='needs Chromium')
def test_the_slider_shows_one_sheet_at_a_time_in_a_browser(report, tmp_path):
    folder = written(tmp_path / 'run', [{'step': 30, 'loss': 1.0}])
    (folder / 'samples').mkdir()
    for step in (10, 20, 30):
        PIL.Image.new('RGB', (8, 8), (step, 0, 0)).save(folder / 'samples' / f'step_{step:07}.png')
    report(folder)
    address = (tmp_path / 'out' / 'run.html').as_uri()
    command = ['chromium', '--headless=new', '--no-sandbox', '--disable-gpu', f'--user-data-dir={tmp_path / "browser"}']
    done = subprocess.run([*command, '--dump-dom', address], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.count('<figure') == 3 and done.stdout.count('hidden=""') == 2, done.stderr
    assert '<output aria-live="polite">step 30</output>' in done.stdout
