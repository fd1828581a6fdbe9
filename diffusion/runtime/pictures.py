"""PNG files and labelled sheets of pictures."""

import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from diffusion.runtime import writer

MARGIN = 6
# What is opened: formats of pictures, none that runs programs or holds documents.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'TIFF', 'BMP', 'PPM')


def to_pil(image: np.ndarray) -> Image.Image:
    """image: uint8 [H, W, 1] or [H, W, 3]."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def save(path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, C] as PNG, atomically."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, 'PNG')
    with writer.atomic(path) as file:
        file.write(buffer.getvalue())


def load(path, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture as uint8 `shape`, see `read`. Raises ValueError, for another size too."""
    height, width, channels = shape
    image, _ = read(path, channels)
    if image.shape[:2] != (height, width):
        raise ValueError(
            f'{str(path)!r} is {image.shape[1]} x {image.shape[0]} pixels, this model draws {width} x {height}: '
            'resize it'
        )
    return image


def read(path, channels: int) -> tuple[np.ndarray, np.ndarray | None]:
    """A picture as uint8 [H, W, channels], upright, and its opacity [H, W] where it has one besides.

    channels: 1 means grey, 3 RGB, 4 RGBA. Nothing of a picture is lost: one of 16 bits, in ink (CMYK) or, for a grey
    model, in colours is refused with a ValueError, like a file that is no picture.
    """
    upright = _opened(path)
    if upright.mode not in ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA'):
        raise ValueError(f'{str(path)!r} has pixels of mode {upright.mode}: grey or RGB in 8 bits is wanted')
    if channels not in (1, 3, 4):
        raise ValueError(f'this model draws {channels} channels, which no picture has')
    full = np.asarray(upright.convert('RGBA'))
    if channels == 4:
        return full, None
    opacity = full[..., 3] if upright.has_transparency_data else None
    if channels == 1 and np.any(full[..., :1] != full[..., 1:3]):
        raise ValueError(f'{str(path)!r} is in colour, and this model draws grey: convert it')
    return np.ascontiguousarray(full[..., :channels]), opacity


def read_grey(path) -> np.ndarray:
    """The luminance of a picture, uint8 [H, W], upright. Raises ValueError."""
    return np.asarray(_opened(path).convert('L'))


def _opened(path) -> Image.Image:
    try:
        with Image.open(path, formats=FORMATS) as opened:
            return ImageOps.exif_transpose(opened)
    except FileNotFoundError as error:
        raise ValueError(f'there is no picture {str(path)!r}') from error
    except Exception as error:
        # Pillow's plugins raise what their parsing stumbles on, IndexError and struct.error among them.
        raise ValueError(f'{str(path)!r} cannot be read as a picture: {error}') from error


def save_array(path, values: np.ndarray) -> None:
    """Writes numbers as .npy, atomically."""
    with writer.atomic(path) as file:
        np.save(file, values, allow_pickle=False)


def sheet(images: np.ndarray, labels=None, columns: int = 0, cell: int = 96) -> np.ndarray:
    """Pictures in rows, each enlarged by a whole factor to about `cell` pixels, with a label below where given.

    images: uint8 [N, H, W, C]; labels: N strings, those that begin with '*' are set in red; columns: 0 for a square.
    Returns uint8 [height, width, 3].
    """
    count, height, width = images.shape[:3]
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    factor = max(cell // max(height, width), 1)
    font = ImageFont.load_default(11)
    room = 26 if labels else 0
    step_x, step_y = width * factor + MARGIN, height * factor + MARGIN + room
    rows = math.ceil(count / columns)
    page = Image.new('RGB', (columns * step_x + MARGIN, rows * step_y + MARGIN), 'white')
    draw = ImageDraw.Draw(page)
    for index, image in enumerate(images):
        x, y = MARGIN + index % columns * step_x, MARGIN + index // columns * step_y
        picture = to_pil(image).convert('RGB').resize((width * factor, height * factor), Image.Resampling.NEAREST)
        page.paste(picture, (x, y))
        if labels:
            label = labels[index]
            lines = _wrap(label.removeprefix('*'), font, width * factor)
            colour = '#b00020' if label.startswith('*') else '#333333'
            draw.multiline_text((x, y + height * factor + 1), lines, colour, font, spacing=1)
    return np.asarray(page)


def _wrap(text, font, width):
    """The text in two lines at most, the second cut with an ellipsis where it does not fit."""
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > 2:
        lines = [lines[0], ' '.join(lines[1:])]
    while font.getlength(lines[-1]) > width:
        lines[-1] = lines[-1].rstrip('…')[:-1] + '…'
    return '\n'.join(lines)


def scatter(points: np.ndarray, size: int = 384, reach: float = 1.5) -> np.ndarray:
    """Points of the plane as a picture: points: float [N, 2] in [-reach, reach] -> uint8 [size, size, 3].

    Points that are not finite are left out.
    """
    page = np.full((size, size, 3), 255, np.uint8)
    points = points[np.isfinite(points).all(1)]
    where = np.clip((points / reach + 1) / 2 * (size - 1), 0, size - 1).round().astype(int)
    for dx in (0, 1):
        for dy in (0, 1):
            page[np.minimum(where[:, 1] + dy, size - 1), np.minimum(where[:, 0] + dx, size - 1)] = (
                30,
                60,
                160,
            )
    return page[::-1]
