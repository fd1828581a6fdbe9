"""From a stored picture to an array of one size: the one place where pictures are decoded, cut and resized."""

import contextlib
import dataclasses
import io
import struct
import zlib

import numpy as np
import PIL.Image

# What is opened: the formats of pictures, none that runs programs or holds documents.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'TIFF', 'BMP', 'PPM', 'JPEG2000')
CROPS = ('center', 'pad', 'stretch', 'none')
FILTERS = {name.lower(): value for name, value in PIL.Image.Resampling.__members__.items()}
_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}
_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG2000 = (b'\x00\x00\x00\x0cjP  ', b'\xff\x4f\xff\x51')
# By EXIF's tag 0x0112, what brings a picture upright.
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


class Unreadable(ValueError):
    """A picture that cannot be had from its bytes; the message is the reason, one line."""


class Misfit(ValueError):
    """A picture that is whole but has not the size or the channels that are wanted."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """What is made of every picture.

    image_size: pixels of a side, 0: as they are stored, which must then be one size; width: where it differs from the
    height `image_size`; crop: 'center' cuts the largest centred part that has the target's aspect and resizes it, 'pad'
    resizes the whole picture into the target and fills the rest with the background, 'stretch' resizes without keeping
    the aspect, 'none' takes only pictures of exactly this size; filter: Pillow's, 'bicubic', 'lanczos', 'bilinear',
    'hamming' and 'box' are antialiased, 'nearest' is not; background: RGB in [0, 255] that what is transparent is laid
    over, (): opacity is dropped; channels: 1 grey, 3 RGB, 4 RGBA, 0: RGB, or what arrays have; oriented: whether the
    rotation that EXIF notes is carried out. Raises ValueError.
    """

    image_size: int = 0
    crop: str = 'center'
    filter: str = 'bicubic'
    background: tuple[int, ...] = (255, 255, 255)
    channels: int = 0
    width: int = 0
    oriented: bool = True

    def __post_init__(self):
        if self.image_size < 0 or self.width < 0:
            raise ValueError(f'image_size={self.image_size}: it is 0 (as stored) or a number of pixels')
        if self.crop not in CROPS:
            raise ValueError(f'crop={self.crop!r}: it is one of {", ".join(CROPS)}')
        if self.filter not in FILTERS:
            raise ValueError(f'filter={self.filter!r}: it is one of {", ".join(FILTERS)}')
        if len(self.background) not in (0, 3) or not all(0 <= value <= 255 for value in self.background):
            raise ValueError(f'background={self.background}: three numbers in [0, 255], as (255, 255, 255) for white')
        if self.channels < 0:
            raise ValueError(f'channels={self.channels}: 1 (grey), 3 (RGB), 4 (RGBA) or 0')

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, (0, 0) for as stored."""
        return (self.width or self.image_size, self.image_size)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A picture as it would be shown, before it is fitted. mode: Pillow's ('RGB', 'L', 'P', 'I;16' ...), for an array
    its dtype and channels ('float32 x 5')."""

    width: int
    height: int
    mode: str


def measure(image: bytes | np.ndarray, oriented: bool = True) -> Measured:
    """The size of a picture from its header alone. Raises `Unreadable`."""
    if isinstance(image, np.ndarray):
        _check_array(image)
        channels = image.shape[2] if image.ndim == 3 else 1
        return Measured(image.shape[1], image.shape[0], f'{image.dtype} x {channels}')
    with _reading():
        opened = _open(image)
        width, height = opened.size
        if oriented and opened.format == 'TIFF':
            opened.load()  # Pillow turns these itself, and some versions tell the size before
            width, height = opened.size
        elif oriented and _orientation(opened) in (5, 6, 7, 8):
            width, height = height, width
        return Measured(width, height, opened.mode)


def cut(width: int, height: int, fit: Fit) -> float:
    """The share of a picture of this size that the crop leaves out, in [0, 1)."""
    left, top, right, bottom = _box(width, height, fit)
    return 1 - (right - left) * (bottom - top) / (width * height)


def decode(image: bytes | np.ndarray, fit: Fit) -> np.ndarray:
    """A picture as [H, W, C]: uint8, but float32 where it is an array of floats, which is taken as it is.

    Damage is never shown: what Pillow does not decode to its end, or what a checksum (PNG) or a missing end (JPEG)
    gives away, is `Unreadable`; what has not the size or channels that `fit` insists on is a `Misfit`. Of animations
    the first picture is taken. 16 bits a channel become 8: grey ones rounded, of colours Pillow keeps the upper byte.
    """
    if isinstance(image, np.ndarray):
        return _array(image, fit)
    channels = fit.channels or 3
    if channels not in _MODES:
        raise Misfit(f'channels={channels}: image files have 1 (grey), 3 (RGB) or 4 (RGBA)')
    with _reading():
        _check_whole(image)
        opened = _open(image)
        opened.load()
        image_format, turn = opened.format, _TURNS.get(_orientation(opened)) if fit.oriented else None
        turned = opened if turn is None else opened.transpose(turn)
        plain = _plain(turned, image_format, fit.background, _MODES[channels])
    resized = np.asarray(_resized(plain, fit))
    return resized.reshape(*resized.shape[:2], channels)


@contextlib.contextmanager
def _reading():
    """Whatever a decoder makes of damaged bytes is `Unreadable`."""
    try:
        yield
    except Unreadable:
        raise
    except PIL.UnidentifiedImageError as error:
        raise Unreadable('no picture of a format that is read') from error
    except Exception as error:
        # Pillow's plugins raise what their parsing stumbles on, IndexError and struct.error among them.
        raise Unreadable(' '.join(str(error).split()) or type(error).__name__) from error


def _open(data):
    if not data:
        raise Unreadable('missing or empty')
    opened = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if limit and opened.width * opened.height > limit:
        raise Unreadable(f'{opened.width} x {opened.height} pixels: over {limit:,}')
    return opened


def _check_whole(data):
    """What Pillow lets pass: checksums of PNG's pixels, a JPEG without its end."""
    if data.startswith(_PNG):
        place, name = len(_PNG), b''
        while name != b'IEND':
            length, name = struct.unpack_from('>I4s', data, place)
            (checksum,) = struct.unpack_from('>I', data, place + 8 + length)
            if zlib.crc32(memoryview(data)[place + 4 : place + 8 + length]) != checksum:
                raise Unreadable(f'damaged PNG: wrong checksum of {name.decode("ascii", "replace")}')
            place += 12 + length
    elif data.startswith(b'\xff\xd8') and not _ends(data, b'\xff\xda'):
        raise Unreadable('truncated JPEG')
    elif data.startswith(_JPEG2000) and not _ends(data, b'\xff\x93'):
        raise Unreadable('truncated JPEG 2000')


def _ends(data, start):
    """Whether the mark of the end, which pixels never hold, comes after the last mark of a start of pixels."""
    last = data.rfind(start)
    return last >= 0 and data.find(b'\xff\xd9', last) >= 0


# What Pillow's parsing of EXIF stumbles on. Anything else makes the picture an unreadable one.
_BAD_EXIF = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


def _orientation(image):
    """What EXIF says of how a picture stands, 1 where it says nothing. Many cameras and programs write EXIF that cannot
    be read: the picture is whole all the same."""
    try:
        return image.getexif().get(0x0112, 1)
    except _BAD_EXIF:
        return 1


def _plain(image, stored, background, mode):
    """Any of Pillow's modes as `mode`, one of L, RGB, RGBA. stored: the format of its file."""
    if image.mode == 'F' or (image.mode == 'I' and stored not in ('PNG', 'PPM')):
        raise Unreadable(f'32 bits a pixel (mode {image.mode}): give such pictures as .npy arrays')
    if image.mode.startswith('I'):
        # Pillow's own conversion clips 16 bits to 8.
        image = PIL.Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data and background and mode != 'RGBA':
        image = image.convert('RGBA')
        image = PIL.Image.alpha_composite(PIL.Image.new('RGBA', image.size, (*background, 255)), image)
        image = image.convert('RGB')
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(values):
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _box(width, height, fit):
    """What is kept of a picture: (left, top, right, bottom)."""
    columns, rows = fit.size
    if fit.crop != 'center' or not rows or (width, height) == (columns, rows):
        return 0, 0, width, height
    # The larger of the two boxes that touch two sides, and no side of it under a pixel.
    across = min(width, max(1, round(height * columns / rows)))
    down = min(height, max(1, round(width * rows / columns)))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _resized(image, fit):
    size = fit.size
    if not fit.image_size or image.size == size:
        return image
    if fit.crop == 'none':
        raise Misfit(f'{image.width} x {image.height} pixels where crop=none takes only {size[0]} x {size[1]}')
    resample = FILTERS[fit.filter]
    if fit.crop == 'pad':
        scale = min(size[0] / image.width, size[1] / image.height)
        inner = tuple(max(1, min(most, round(side * scale))) for side, most in zip(image.size, size))
        whole = PIL.Image.new(image.mode, size, _fill(image.mode, fit.background))
        whole.paste(image.resize(inner, resample), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
        return whole
    # resize(box=...) would let pixels outside the box into those at its edge.
    return image.crop(_box(*image.size, fit)).resize(size, resample)


def _fill(mode, background):
    colour = background or (0, 0, 0)
    if mode == 'RGB':
        return colour
    if mode == 'RGBA':
        return (*colour, 0)
    # A plane of an array has no colour: the border is 0.
    return 0 if mode == 'F' else PIL.Image.new('RGB', (1, 1), colour).convert('L').getpixel((0, 0))


def _check_array(image):
    if image.ndim not in (2, 3) or not image.size:
        raise Unreadable(f'an array of shape {image.shape} where [H, W] or [H, W, C] is wanted')
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != 'f':
        raise Unreadable(f'an array of {image.dtype} where uint8, uint16 or floats are wanted')


def _array(image, fit):
    _check_array(image)
    image = image[:, :, None] if image.ndim == 2 else image
    image = _eight_bits(image) if image.dtype == np.uint16 else image
    channels, wanted = image.shape[2], fit.channels or image.shape[2]
    if image.dtype == np.uint8 and channels in _MODES and wanted in _MODES:
        plain = PIL.Image.fromarray(image[:, :, 0] if channels == 1 else image)
        resized = np.asarray(_resized(_plain(plain, '', fit.background, _MODES[wanted]), fit))
        return resized.reshape(*resized.shape[:2], wanted)
    if channels != wanted:
        raise Misfit(f'{channels} channels of {image.dtype} where channels={wanted}')
    kind = np.uint8 if image.dtype == np.uint8 else np.float32
    if kind == np.float32 and not np.isfinite(image).all():
        raise Unreadable('numbers that are not finite')
    planes = np.moveaxis(image.astype(kind), 2, 0)
    return np.stack(
        [np.asarray(_resized(PIL.Image.fromarray(np.ascontiguousarray(plane)), fit)) for plane in planes], 2
    )
