"""CLIP's towers and tokens against Hugging Face's where that is installed, and what they do with other files."""

import collections
import itertools
import json
import types

import numpy as np
import pytest

from diffusion.evaluation import byte_pairs
from diffusion.nets import clip, functional, resizing, safetensors
from diffusion.programs import clipscore, networks
from diffusion.runtime import mesh

CAPTIONS = [
    "a cat's face, 3 tears of joy!",
    'Grinning  face with BIG eyes',
    'smiling face',
    'face',
    "they've 42 é ☺ cats'",
]
LENGTH = 40


def learned(captions, count):
    """Pairs in the order in which they are the commonest, as byte pairs are learned, and a vocabulary of all tokens."""
    words = [list(map(byte_pairs._letters().__getitem__, word.encode())) for text in captions for word in text.split()]
    words = [[*word[:-1], f'{word[-1]}</w>'] for word in words]
    pairs = []
    for _ in range(count):
        counted = collections.Counter(pair for word in words for pair in itertools.pairwise(word))
        if not counted:
            break
        pairs.append(max(counted, key=lambda pair: (counted[pair], pair)))
        for word in words:
            place = 0
            while place + 1 < len(word):
                if (word[place], word[place + 1]) == pairs[-1]:
                    word[place : place + 2] = [''.join(pairs[-1])]
                place += 1
    letters = byte_pairs._letters()
    tokens = [*letters, *(f'{letter}</w>' for letter in letters), *dict.fromkeys(''.join(pair) for pair in pairs)]
    return pairs, {word: place for place, word in enumerate([*tokens, byte_pairs.START, byte_pairs.END])}


def written(folder, tensors):
    pairs, tokens = learned([text.lower() for text in CAPTIONS], 60)
    (folder / 'vocab.json').write_text(json.dumps(tokens))
    (folder / 'merges.txt').write_text('\n'.join(['#version: 0.2', *(' '.join(pair) for pair in pairs)]) + '\n')
    if tensors:
        (folder / 'model.safetensors').write_bytes(safetensors.packed(tensors, {}))
    return pairs, tokens


def test_words_are_split_and_joined_as_told(tmp_path):
    _, tokens = written(tmp_path, {})
    words = byte_pairs.Vocabulary(tmp_path, LENGTH)
    assert list(byte_pairs._words("they've 42 cats'!")) == ['they', "'ve", '4', '2', 'cats', "'!"]
    found, ends = words.encode(['face', 'Face ' * 99])
    assert list(found[0, :3]) == [tokens[byte_pairs.START], tokens['face</w>'], words.end] and ends[0] == 2
    assert (found[1, 1:-1] == tokens['face</w>']).all() and ends[1] == LENGTH - 1 and found[1, -1] == words.end
    (tmp_path / 'merges.txt').write_text('a b c\n')
    with pytest.raises(ValueError, match='no pair'):
        byte_pairs.Vocabulary(tmp_path, LENGTH)
    (tmp_path / 'vocab.json').write_text('[1]')
    with pytest.raises(ValueError, match='not those of CLIP'):
        byte_pairs.Vocabulary(tmp_path, LENGTH)
    with pytest.raises(ValueError, match='is missing'):
        byte_pairs.Vocabulary(tmp_path / 'none', LENGTH)


def test_scores_are_hugging_faces(tmp_path):
    """Random weights through the file that their package writes: tokens equal, unit vectors and scores within 1e-4."""
    torch = pytest.importorskip('torch', reason="needs PyTorch, which this is held against: pip install '.[parity]'")
    transformers = pytest.importorskip(
        'transformers', reason="needs transformers, which this is held against: pip install '.[parity]'"
    )
    torch.manual_seed(0)
    pairs, tokens = written(tmp_path, {})
    end = tokens[byte_pairs.END]
    shared = {'num_hidden_layers': 2, 'num_attention_heads': 2, 'hidden_size': 128, 'intermediate_size': 160}
    text = {**shared, 'vocab_size': len(tokens), 'max_position_embeddings': LENGTH, 'eos_token_id': end}
    vision = {**shared, 'image_size': 32, 'patch_size': 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=48)
    theirs = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for one in theirs.parameters():
            one.copy_(torch.randn_like(one) * (0.3 if one.ndim < 2 else 1.5 / one.shape[-1] ** 0.5))
    theirs.save_pretrained(tmp_path)
    tokenizer = transformers.CLIPTokenizer(vocab=tokens, merges=pairs)
    scorer = clipscore.opened(str(tmp_path), 3, mesh.make(functional.jax.devices()), 8)
    expected = tokenizer(CAPTIONS, padding='max_length', max_length=LENGTH, truncation=True)['input_ids']
    ours, _ = scorer.words.encode(CAPTIONS)
    np.testing.assert_array_equal(ours, expected)
    images = np.random.default_rng(0).integers(0, 256, (len(CAPTIONS), 20, 20, 3), dtype=np.uint8)
    seen = np.asarray(resizing.smooth(images, 32)) / 255
    seen = (seen - np.array(clip.MEAN)) / np.array(clip.DEVIATION)
    with torch.no_grad():
        out = theirs(
            input_ids=torch.tensor(expected), pixel_values=torch.from_numpy(seen.transpose(0, 3, 1, 2)).float()
        )
    cosines = (out.image_embeds * out.text_embeds).sum(-1).numpy()
    np.testing.assert_allclose(scorer.cosines(images, CAPTIONS), cosines, atol=1e-4)
    assert cosines.std() > 1e-3  # captions and pictures are told apart at all
    np.testing.assert_allclose(scorer.scores(images, CAPTIONS), 2.5 * np.maximum(cosines, 0), atol=1e-3)
    flags = types.SimpleNamespace(features=f'clip:{tmp_path / "model.safetensors"}', features_sha256=None, resize=None)
    extractor = networks.open(flags, 3, None, '')
    features = extractor.apply(extractor.params, images)[0]
    np.testing.assert_allclose(features, out.image_embeds.numpy(), atol=1e-4)
    for broken, say in (('vocab.json', 'CLIP'), ('model.safetensors', 'cut short')):
        path = tmp_path / broken
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ValueError, match=say):
            clipscore.opened(str(tmp_path), 3, scorer.grid, 8)
