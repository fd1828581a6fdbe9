"""Pictures: every mode against what the format defines, every fit against its bounds, damage never shown."""

import io
import struct
import zlib

import hypothesis
import hypothesis.extra.numpy as arrays
import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import strategies

from diffusion.data import pictures
from tests.data import written

FIT = pictures.Fit()
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (9, 12, 3), np.uint8)


def png_of_16_bits(values) -> bytes:
    """By the PNG specification, not by Pillow: uint16 [H, W] or [H, W, 3]."""
    height, width = values.shape[:2]
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)

    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    header = struct.pack('>IIBBBBB', width, height, 16, 2 if values.ndim == 3 else 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')


def test_sixteen_bits_are_scaled_not_clipped():
    grey = RNG.integers(0, 65536, (9, 12)).astype(np.uint16)
    grey[0, :4] = 0, 65535, 257, 128
    wanted = np.floor(grey / 257 + 0.5)
    found = pictures.decode(png_of_16_bits(grey), FIT)
    np.testing.assert_array_equal(found, np.repeat(wanted[:, :, None], 3, 2))
    np.testing.assert_array_equal(pictures.decode(grey, FIT)[:, :, 0], wanted)
    tiff = io.BytesIO()
    PIL.Image.fromarray(grey).save(tiff, 'TIFF')
    np.testing.assert_array_equal(pictures.decode(tiff.getvalue(), FIT), found)
    # Of colours Pillow keeps the upper byte: less than a level off.
    colour = RNG.integers(0, 65536, (9, 12, 3)).astype(np.uint16)
    assert abs(pictures.decode(png_of_16_bits(colour), FIT) - colour / 257).max() <= 1


def test_transparency_is_laid_over_the_background():
    rgba = np.dstack([COLOUR, RNG.integers(0, 256, (9, 12), np.uint8)])
    alpha = rgba[:, :, 3:] / 255
    for background in ((255, 255, 255), (10, 200, 30)):
        found = pictures.decode(written.png(rgba), pictures.Fit(background=background))
        assert abs(found - (COLOUR * alpha + np.array(background) * (1 - alpha))).max() <= 1
        np.testing.assert_array_equal(pictures.decode(rgba, pictures.Fit(background=background, channels=3)), found)
    np.testing.assert_array_equal(pictures.decode(written.png(rgba), pictures.Fit(background=())), COLOUR)
    np.testing.assert_array_equal(pictures.decode(written.png(rgba), pictures.Fit(channels=4)), rgba)


def test_palettes_with_and_without_transparency():
    indices = RNG.integers(0, 4, (9, 12)).astype(np.uint8)
    table = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    image = PIL.Image.fromarray(indices)
    image.putpalette(table.tobytes())
    np.testing.assert_array_equal(pictures.decode(written.png(image), FIT), table[indices])
    clear = pictures.decode(written.png(image, transparency=2), FIT)
    table[2] = 255
    np.testing.assert_array_equal(clear, table[indices])


def test_grey_and_one_bit_and_cmyk():
    grey = COLOUR[:, :, 0]
    np.testing.assert_array_equal(pictures.decode(written.png(grey), pictures.Fit(channels=1))[:, :, 0], grey)
    np.testing.assert_array_equal(pictures.decode(written.png(grey), FIT), np.repeat(grey[:, :, None], 3, 2))
    bits = PIL.Image.fromarray(grey > 127)
    np.testing.assert_array_equal(pictures.decode(written.png(bits), FIT)[:, :, 0], np.where(grey > 127, 255, 0))
    ink = np.dstack([COLOUR, RNG.integers(0, 256, (9, 12), np.uint8)])
    cmyk = written.png(PIL.Image.frombytes('CMYK', (12, 9), ink.tobytes()), 'TIFF')
    wanted = (255 - ink[:, :, :3].astype(int)) * (255 - ink[:, :, 3:].astype(int)) / 255
    assert abs(pictures.decode(cmyk, FIT) - wanted).max() <= 1


# EXIF 2.3, tag 0x0112: where the stored first row and first column are shown.
ORIENTED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize('format', ['PNG', 'TIFF'])
@pytest.mark.parametrize('orientation', ORIENTED)
def test_exif_rotation(orientation, format):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = written.png(COLOUR, format, exif=exif)
    found = pictures.decode(data, FIT)
    np.testing.assert_array_equal(found, ORIENTED[orientation](COLOUR))
    measured = pictures.measure(data)
    assert (measured.height, measured.width) == found.shape[:2]
    if format == 'PNG':  # a TIFF is turned by Pillow itself
        np.testing.assert_array_equal(pictures.decode(data, pictures.Fit(oriented=False)), COLOUR)


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_exif_that_cannot_be_read_damages_no_picture():
    plain = written.png(COLOUR, 'JPEG', quality=95)
    for exif in (
        b'Exif\0\0nonsense',
        b'Exif\0\0II*\0\xff\xff\xff\x7f',
        b'Exif\0\0MM\0*\0\0\0\x08\xff\xff' + b'\xee' * 30,
    ):
        segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
        data = plain[:2] + segment + plain[2:]
        np.testing.assert_array_equal(pictures.decode(data, FIT), pictures.decode(plain, FIT))
        assert pictures.measure(data) == pictures.measure(plain)


def test_arrays_of_floats_are_taken_as_they_are():
    image = RNG.normal(size=(6, 6, 5)).astype(np.float64) * 1000
    found = pictures.decode(image, FIT)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, image.astype(np.float32))
    # A constant stays one through the resizing, every plane its own.
    flat = np.broadcast_to(np.arange(5, dtype=np.float32), (9, 6, 5))
    np.testing.assert_allclose(pictures.decode(flat, pictures.Fit(4)), flat[:4, :4], rtol=1e-6)
    with pytest.raises(pictures.Unreadable, match='not finite'):
        pictures.decode(np.full((2, 2, 1), np.nan), FIT)
    with pytest.raises(pictures.Misfit, match='5 channels of float32 where channels=3'):
        pictures.decode(image.astype(np.float32), pictures.Fit(channels=3))
    with pytest.raises(pictures.Unreadable, match='int64'):
        pictures.decode(np.zeros((2, 2), np.int64), FIT)


SIZES = strategies.integers(1, 40)
FITS = strategies.builds(
    pictures.Fit,
    image_size=SIZES,
    width=strategies.integers(0, 40),
    crop=strategies.sampled_from(('center', 'pad', 'stretch')),
    filter=strategies.sampled_from(sorted(pictures.FILTERS)),
    channels=strategies.sampled_from((1, 3, 4)),
)


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    image=arrays.arrays(np.uint8, strategies.tuples(SIZES, SIZES, strategies.sampled_from((1, 3, 4)))), fit=FITS
)
def test_every_fit_has_its_shape_and_encoding_changes_nothing(image, fit):
    found = pictures.decode(image, fit)
    assert found.shape == (fit.image_size, fit.width or fit.image_size, fit.channels)
    assert found.dtype == np.uint8
    encoded = written.png(image[:, :, 0] if image.shape[2] == 1 else image)
    np.testing.assert_array_equal(pictures.decode(encoded, fit), found)
    measured = pictures.measure(encoded)
    assert (measured.height, measured.width) == image.shape[:2]


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
@hypothesis.given(width=SIZES, height=SIZES, fit=FITS)
def test_what_is_cut_is_what_is_said(width, height, fit):
    """A picture whose pixels are its places, reduced without mixing them: those that are gone were cut."""
    share = pictures.cut(width, height, fit)
    assert 0 <= share < 1
    if fit.crop != 'center':
        assert share == 0
        return
    columns, rows = fit.width or fit.image_size, fit.image_size
    kept = (1 - share) * width * height
    assert abs(kept - round(kept)) < 1e-6
    # As much as a box of the target's aspect can hold, to the pixel that each of its sides is rounded by.
    most = min(width, height * columns / rows), min(height, width * rows / columns)
    assert max(1, most[0] - 0.5) * max(1, most[1] - 0.5) - 1e-6 <= kept <= (most[0] + 1) * (most[1] + 1)


def test_crops_show_what_they_say():
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 200
    assert (pictures.decode(wide, pictures.Fit(2, filter='nearest')) == 200).all()
    assert pictures.cut(8, 4, pictures.Fit(2)) == 0.5
    padded = pictures.decode(wide, pictures.Fit(8, crop='pad', filter='nearest', background=(1, 2, 3)))
    np.testing.assert_array_equal(padded[2:6], wide)
    assert (padded[[0, 1, 6, 7]] == (1, 2, 3)).all()
    stretched = pictures.decode(wide, pictures.Fit(4, crop='stretch', filter='box'))
    np.testing.assert_array_equal(stretched, wide[:, ::2])
    with pytest.raises(pictures.Misfit, match='8 x 4 pixels where crop=none takes only 4 x 4'):
        pictures.decode(wide, pictures.Fit(4, crop='none'))


def test_reduction_is_antialiased():
    """A checkerboard of single pixels becomes grey: a filter without antialiasing keeps black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    board = np.repeat(board[:, :, None].astype(np.uint8), 3, 2)
    for name in ('bicubic', 'lanczos', 'bilinear', 'hamming', 'box'):
        inner = pictures.decode(board, pictures.Fit(8, filter=name))[2:-2, 2:-2]
        assert abs(inner.astype(int) - 127.5).max() < 3, name
    assert set(np.unique(pictures.decode(board, pictures.Fit(8, filter='nearest')))) <= {0, 255}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'crop': 'middle'}, "crop='middle': it is one of center"),
        ({'filter': 'cubic'}, "filter='cubic': it is one of"),
        ({'background': (1, 2)}, 'three numbers'),
        ({'background': (1, 2, 256)}, 'three numbers'),
        ({'image_size': -1}, 'image_size=-1'),
        ({'channels': -1}, 'channels=-1'),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        pictures.Fit(**arguments)


def test_a_bomb_is_unreadable(monkeypatch):
    data = written.png(np.zeros((40, 40), np.uint8))
    # Pillow itself only warns up to twice its limit.
    monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.warns(PIL.Image.DecompressionBombWarning), pytest.raises(pictures.Unreadable, match='40 x 40 pixels'):
        pictures.decode(data, FIT)
    monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(pictures.Unreadable, match='decompression bomb'):
        pictures.decode(data, FIT)


@pytest.mark.parametrize('data', [b'', b'GIF89a', b'%!PS-Adobe-3.0 EPSF', b'\0' * 100, b'<svg/>'])
def test_what_is_no_picture_is_unreadable(data):
    with pytest.raises(pictures.Unreadable):
        pictures.decode(data, FIT)


def _encoded():
    smooth = np.add.outer(np.arange(24), np.arange(31))[:, :, None] * np.array([3, 2, 4]) % 256
    noisy = (smooth + RNG.integers(0, 30, smooth.shape)).clip(0, 255).astype(np.uint8)
    return {
        'png': written.png(noisy),
        'palette': written.png(PIL.Image.fromarray(noisy).quantize(64)),
        'jpeg': written.png(noisy, 'JPEG'),
        'progressive': written.png(noisy, 'JPEG', progressive=True),
        'webp': written.png(noisy, 'WEBP'),
        'lossless': written.png(noisy, 'WEBP', lossless=True),
        'gif': written.png(noisy, 'GIF'),
        'tiff': written.png(noisy, 'TIFF'),
        'deflated': written.png(noisy, 'TIFF', compression='tiff_deflate'),
        'bmp': written.png(noisy, 'BMP'),
        **({'jpeg2000': written.png(noisy, 'JPEG2000')} if PIL.features.check('jpg_2000') else {}),
    }


def damaged(count):
    """(name, whole file, damaged file): cut, bits flipped, pieces lost."""
    rng = np.random.default_rng(1)
    whole = _encoded()
    for i in range(count):
        name = sorted(whole)[i % len(whole)]
        data = bytearray(whole[name])
        place = int(rng.integers(len(data)))
        if i // len(whole) % 3 == 0:
            del data[place:]
        elif i // len(whole) % 3 == 1:
            for bit in rng.integers(8 * len(data), size=rng.integers(1, 4)).tolist():
                data[bit // 8] ^= 1 << bit % 8
        else:
            del data[place : place + int(rng.integers(1, 50))]
        yield name, whole[name], bytes(data)


def strict(data):
    """What Pillow decodes with all its checks, PNG's checksums by its own `verify`; None where it refuses."""
    try:
        if data.startswith(b'\x89PNG'):
            PIL.Image.open(io.BytesIO(data)).verify()
        image = PIL.Image.open(io.BytesIO(data))
        image.load()
        return np.asarray(PIL.ImageOps.exif_transpose(image).convert('RGB'))
    except Exception:
        return None


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_damage_is_found_or_is_what_pillow_shows():
    """Never another error, never a picture that Pillow with its checks does not give, never a cut one; in PNG, whose
    checksums cover every byte, never a changed one."""
    found = dict.fromkeys(_encoded(), 0)
    for name, whole, data in damaged(1000):
        try:
            image = pictures.decode(data, FIT)
        except pictures.Unreadable as error:
            assert str(error) and '\n' not in str(error)
            found[name] += 1
            continue
        shown = strict(data)
        assert shown is not None, name
        if not PIL.Image.open(io.BytesIO(data)).has_transparency_data:
            np.testing.assert_array_equal(image, shown)
        if name in ('png', 'palette'):
            np.testing.assert_array_equal(image, pictures.decode(whole, FIT))
        if whole.startswith(data):
            np.testing.assert_array_equal(image, pictures.decode(whole, FIT))
    assert all(found.values()), found


@pytest.mark.parametrize('name', _encoded())
@pytest.mark.filterwarnings('ignore::UserWarning')
def test_no_file_that_is_cut_shows_another_picture(name):
    """Cut at every byte."""
    data = _encoded()[name]
    whole = pictures.decode(data, FIT)
    for end in range(len(data)):
        try:
            found = pictures.decode(data[:end], FIT)
        except pictures.Unreadable:
            continue
        np.testing.assert_array_equal(found, whole)
