"""DINOv2 against Pillow and PyTorch's resizing, and against Hugging Face's implementation where that is installed."""

import jax
import numpy as np
import pytest
from PIL import Image

from diffusion.evaluation import tensorfile
from diffusion.nets import dinov2, functional

SMALL = dict(patch=14, side=5, width=128, depth=2, heads=2)


def network(**sizes):
    return functional.functional(lambda rngs: dinov2.DINOv2(**sizes, rngs=rngs))


@pytest.mark.parametrize('size', [(32, 32), (300, 260)], ids=str)
def test_pictures_are_resized_as_pillow_does(size):
    """On floats, as clean-FID does it; then ImageNet's mean and deviation, of values in [0, 1]."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = np.asarray(dinov2.seen(image[None]))[0]
    for channel, (mean, deviation) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        one = Image.fromarray(image[..., channel].astype(np.float32)).resize((224, 224), Image.Resampling.BICUBIC)
        expected = (np.clip(np.asarray(one), 0, 255) / 255 - mean) / deviation
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-4)


def test_cubic_weights_are_exact_on_what_they_must_be():
    """Keys' kernel keeps what is constant, and whole places as they are."""
    weights = dinov2.cubic(37, 16, 0.1)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(dinov2.cubic(9, 9, 0.0), np.eye(9), atol=1e-6)
    assert ((weights != 0).sum(1) <= 4).all()


def published(width=384, depth=12, hidden=1536, gated=False, side=37):
    """Tensors with the names and shapes of the authors' weights, all zeros."""
    shapes = {'cls_token': (1, 1, width), 'pos_embed': (1, 1 + side**2, width), 'mask_token': (1, width)}
    shapes |= {'patch_embed.proj.weight': (width, 3, 14, 14), 'patch_embed.proj.bias': (width,)}
    linear = {'attn.qkv': (3 * width, width), 'attn.proj': (width, width)}
    linear |= (
        {'mlp.w12': (2 * hidden, width), 'mlp.w3': (width, hidden)}
        if gated
        else {'mlp.fc1': (hidden, width), 'mlp.fc2': (width, hidden)}
    )
    for i in range(depth):
        for part, both in linear.items():
            shapes |= {f'blocks.{i}.{part}.weight': both, f'blocks.{i}.{part}.bias': both[:1]}
        for norm in ('norm1', 'norm2'):
            shapes |= {f'blocks.{i}.{norm}.{one}': (width,) for one in ('weight', 'bias')}
        shapes |= {f'blocks.{i}.ls{one}.gamma': (width,) for one in (1, 2)}
    shapes |= {'norm.weight': (width,), 'norm.bias': (width,)}
    return {name: np.zeros(some, np.float32) for name, some in shapes.items()}


def test_the_size_is_read_off_the_weights():
    """ViT-S/14 has 22,056,576 parameters as published, of which 384 are the mask token."""
    tensors = published()
    assert sum(value.size for value in tensors.values()) == 22_056_576
    sizes = dinov2.shape(tensors)
    assert sizes == dict(patch=14, side=37, width=384, depth=12, hidden=1536, heads=6, gated=False)
    params = dinov2.parameters(tensors, **sizes)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 22_056_576 - 384
    giant = dinov2.shape(published(1536, 1, 4096, gated=True))
    assert giant == dict(patch=14, side=37, width=1536, depth=1, hidden=4096, heads=24, gated=True)
    for change, say in (
        ({'register_tokens': np.zeros((1, 4, 384))}, 'it has no register_tokens'),
        ({'norm.weight': np.zeros(3)}, 'norm.weight has shape'),
    ):
        with pytest.raises(ValueError, match=say):
            dinov2.parameters({**tensors, **change}, **sizes)
    with pytest.raises(ValueError, match='pos_embed'):
        dinov2.shape({'fc.weight': np.zeros((2, 2))})


@pytest.mark.parametrize('gated', [False, True], ids=['mlp', 'swiglu'])
def test_features_are_hugging_faces(tmp_path, gated):
    """The same random weights, through the file that their package writes: within 1e-4, positions stretched or not."""
    torch = pytest.importorskip('torch', reason="needs PyTorch, which this is held against: pip install '.[parity]'")
    transformers = pytest.importorskip(
        'transformers', reason="needs transformers, which this is held against: pip install '.[parity]'"
    )
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14, use_swiglu_ffn=gated
    )
    theirs = transformers.Dinov2Model(config).eval()
    with torch.no_grad():
        for one in theirs.parameters():
            one.copy_(torch.randn_like(one) * (0.3 if one.ndim == 1 else 2 / one.shape[-1] ** 0.5))
    theirs.save_pretrained(tmp_path)
    tensors = dinov2.named(tensorfile.read(tmp_path / 'model.safetensors')[0])
    sizes = dinov2.shape(tensors)
    assert sizes == {**SMALL, 'hidden': 344 if gated else 512, 'gated': gated}
    params = dinov2.parameters(tensors, **sizes)
    for side in (70, 42, 112):
        images = np.random.default_rng(side).standard_normal((3, side, side, 3)).astype(np.float32)
        with torch.no_grad():
            expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).pooler_output.numpy()
        found = np.asarray(network(**sizes, offset=0.0).apply(params, images))
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
        assert expected.std(0).max() > 1e-2  # pictures are told apart at all
    grid = np.random.default_rng(0).standard_normal((1, 1, 37, 37)).astype(np.float32)
    scale = (16 + 0.1) / 37
    stretched = torch.nn.functional.interpolate(torch.from_numpy(grid), scale_factor=(scale, scale), mode='bicubic')
    ours = dinov2.cubic(37, 16, 0.1)
    np.testing.assert_allclose(ours @ grid[0, 0] @ ours.T, stretched.numpy()[0, 0], atol=1e-5)
