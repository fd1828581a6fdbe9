import json
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from diffusion.runtime import meter, pictures, preemption, status, writer


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_one_object_a_line_and_tensorboard_reads_them(tmp_path):
    metrics = writer.Metrics(str(tmp_path), 0)
    for step in (10, 20, 30):
        metrics.write(step, {'loss': np.float32(step / 10), 'bad': float('nan')})
    metrics.close()
    lines = read_lines(tmp_path / 'metrics.jsonl')
    assert [(line['step'], line['loss'], line['bad']) for line in lines] == [
        (10, 1, None),
        (20, 2, None),
        (30, 3, None),
    ]
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars('loss')] == [(10, 1), (20, 2), (30, 3)]


def test_a_resumed_run_forgets_what_it_will_write_again(tmp_path):
    metrics = writer.Metrics(str(tmp_path), 0)
    for step in (10, 20, 30):
        metrics.write(step, {'loss': 1.0})
    metrics.close()
    with open(tmp_path / 'metrics.jsonl', 'a') as file:
        file.write('{"step": 40, "lo')
    metrics = writer.Metrics(str(tmp_path), 20)
    metrics.write(30, {'loss': 2.0})
    metrics.close()
    assert [(line['step'], line['loss']) for line in read_lines(tmp_path / 'metrics.jsonl')] == [
        (10, 1),
        (20, 1),
        (30, 2),
    ]
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars('loss')] == [(10, 1), (20, 1), (30, 2)]


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / 'a' / 'file'
    with pytest.raises(RuntimeError), writer.atomic(path) as file:
        file.write(b'half')
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with writer.atomic(path) as file:
        file.write(b'whole')
    assert path.read_bytes() == b'whole'


def test_a_sheet_holds_every_picture_unchanged(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    page = pictures.sheet(
        images, ['cat', '*dog with a very long name that cannot fit', 'x', '', 'y'], columns=3, cell=64
    )
    step, room = 64 + pictures.MARGIN, 26
    for i, image in enumerate(images):
        x, y = pictures.MARGIN + i % 3 * step, pictures.MARGIN + i // 3 * (step + room)
        np.testing.assert_array_equal(page[y : y + 64 : 4, x : x + 64 : 4], image)
    pictures.save(tmp_path / 'page.png', page)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'page.png')), page)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number):
    heard = []
    with preemption.listening(heard.append) as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop and heard == [number.name]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


def test_what_takes_longer_than_the_grace_period_is_a_fault(monkeypatch):
    failed = []
    with preemption.listening(lambda name: None) as stop:
        monkeypatch.setattr(stop, 'fail', failed.append)
        stop.grace = 0.2
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + 5
        assert stop and not failed
        while not failed and time.monotonic() < end:
            time.sleep(0.01)
    assert failed == ['SIGTERM: nothing saved within 0.2 s']


def test_meter_counts_training_time_only():
    meters = meter.Meter(batch=10)
    for loss in (1.0, 3.0):
        with meters.waiting():
            time.sleep(0.05)
        meters.add({'loss': np.float32(loss)})
        with meters.paused():
            time.sleep(0.2)
    found = meters.summary()
    assert found['loss'] == 2
    assert 20 / 0.2 < found['images_per_s'] <= 20 / 0.1
    assert 0.5 < found['data_wait'] <= 1
    assert meters.aside >= 0.4


def test_a_pair_is_the_sums_over_the_weights_and_absent_without_weight():
    meters = meter.Meter(batch=10)
    for pair, empty in (((6.0, 2.0), (0.0, 0.0)), ((1.0, 4.0), (0.0, 0.0)), ((0.0, 0.0), (0.0, 0.0))):
        meters.add({'loss': np.float32(1), 'some': np.float32(pair), 'none': np.float32(empty)})
    found = meters.summary()
    assert found['some'] == 7 / 6 and 'none' not in found and found['loss'] == 1


def test_status_prints_plain_lines_off_a_terminal(capsys):
    with status.Status('train', 100, start=40, every=0) as line:
        line.items = {'loss': '0.5'}
        line.update(50)
        line.say('a message')
    out = capsys.readouterr().err.splitlines()
    assert out[0].startswith('train 50/100  loss 0.5  ETA 0:') and out[1] == 'a message'


@pytest.mark.parametrize('seconds,text', [(5, '0:05'), (65.4, '1:05'), (3600 * 27 + 62, '27:01:02')])
def test_duration(seconds, text):
    assert status.duration(seconds) == text
