"""Tokens: rows that can be read back, and errors that name the word and the prompt."""

import json

import numpy as np
import pytest

from diffusion.data import emoji_dataset, tokens

CAPTIONS = ['cat with tears of joy', 'Smiling cat with heart-eyes', 'woman’s hat', 'flag: Åland Islands']


def test_words_are_numbers_of_the_vocabulary():
    encoder = tokens.words(CAPTIONS)
    rows = encoder.encode(['smiling cat', 'SMILING, cat!', '', "woman's heart-eyes"])
    assert rows.dtype == np.int32
    assert rows.shape == (4, encoder.length)
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not rows[2].any()
    read = [[encoder.vocabulary[number - 1] for number in row if number] for row in rows]
    assert read == [['smiling', 'cat'], ['smiling', 'cat'], [], ["woman's", 'heart-eyes']]
    assert encoder.size == len(encoder.vocabulary) + 1
    assert encoder.length == 8


def test_every_emoji_name_can_be_encoded():
    names = [entry.name for entry in emoji_dataset.entries('all')]
    for make in (tokens.words, tokens.bytes):
        encoder = make(names)
        rows = encoder.encode(names)
        assert rows.min() == 0
        assert rows.max() < encoder.size
        assert (rows[:, 0] > 0).all()
        assert not rows[:, -1].any()


def test_bytes_are_utf8():
    rows = tokens.bytes(CAPTIONS).encode(CAPTIONS)
    assert [bytes(number - 1 for number in row.tolist() if number).decode() for row in rows] == CAPTIONS


@pytest.mark.parametrize('make', [tokens.words, tokens.bytes])
def test_round_trip_through_json(make):
    encoder = make(CAPTIONS, length=40)
    stored = json.loads(json.dumps(encoder.to_json()))
    assert set(stored) == {'kind', 'vocabulary', 'length'}
    assert tokens.from_json(stored) == encoder


def test_vocabulary_does_not_depend_on_the_order_of_captions():
    assert tokens.words(CAPTIONS) == tokens.words(CAPTIONS[::-1])


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: tokens.words(CAPTIONS).encode(['smilng cat']), "'smilng' in 'smilng cat'; nearest: smiling"),
        (lambda: tokens.words(CAPTIONS).encode(['cat zzz']), "unknown word 'zzz' in 'cat zzz'"),
        (lambda: tokens.words(CAPTIONS).encode(['cat ' * 9]), 'has 9 words; this model takes at most 8'),
        (lambda: tokens.bytes(CAPTIONS, 30).encode(['x' * 31]), 'has 31 bytes'),
        (lambda: tokens.words(CAPTIONS, 2), 'longest caption has 5 words'),
        (lambda: tokens.words(['#', '*']), 'no word'),
        (lambda: tokens.from_json({'kind': 'letters'}), "'letters'"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
