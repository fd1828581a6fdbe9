"""The bundled archive: what is in it, and that nothing in it is blank or cut."""

import json
import zipfile

import numpy as np
import PIL.features
import PIL.ImageFont
import pytest

from diffusion.data import emoji_dataset, emoji_render


def test_archive_is_small_and_carries_its_licences():
    assert emoji_dataset.ARCHIVE.stat().st_size <= 3_000_000
    with zipfile.ZipFile(emoji_dataset.ARCHIVE) as archive:
        assert 'SIL OPEN FONT LICENSE Version 1.1' in archive.read('LICENSE.font.txt').decode()
        assert 'Copyright 2013-2017 Google Inc.' in archive.read('LICENSE.font.txt').decode()
        assert 'UNICODE, INC. LICENSE AGREEMENT' in archive.read('LICENSE.unicode.txt').decode()
        table = json.loads(archive.read('emoji.json'))
    ids = [row[0] for row in table['emoji']]
    assert len(set(ids)) == len(ids) == 1870
    assert not any(f'{tone:x}' in id.split('-') for tone in emoji_render.SKIN_TONES for id in ids)


@pytest.mark.parametrize('size', [16, 32])
def test_no_picture_is_blank_or_off_centre(size):
    _, pictures = emoji_dataset.read('all', size)
    ink = 255 - pictures.min(-1).astype(int)
    assert (ink.reshape(len(pictures), -1).max(-1) > 20).all()
    # The box around what can be seen is centred to a pixel, but for the skis with their pale shadow;
    # no picture fills less than a fifth of the width.
    columns, rows = (ink > 8).any(1), (ink > 8).any(2)
    for seen in (columns, rows):
        first, last = seen.argmax(1), size - 1 - seen[:, ::-1].argmax(1)
        assert (abs(first + last - (size - 1)) > 2).sum() <= 1
        assert (last - first + 1 >= size / 5).all()


def test_faces_are_faces():
    faces = {entry.name for entry in emoji_dataset.entries('faces')}
    assert len(faces) == 137
    wanted = (
        'cat with tears of joy,smiling cat with heart-eyes,smiling face with sunglasses,face with monocle,'
        'nerd face,crying cat,dog face,mouse face,robot'
    )
    assert set(wanted.split(',')) <= faces
    assert not faces & {'dog', 'sun with face', 'red heart', 'person facepalming'}


def test_small_pictures_are_block_means():
    _, large = emoji_dataset.read('faces', 32)
    _, small = emoji_dataset.read('faces', 16)
    # Pillow rounds after each of two passes, half a level at most each.
    means = large.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4))
    assert abs(means - small).max() <= 1


def test_names_are_read_from_a_file_in_unicodes_format(tmp_path):
    names = tmp_path / 'emoji-test.txt'
    names.write_text(
        '# group: Smileys & Emotion\n# subgroup: face-smiling\n'
        '1F600                 ; fully-qualified     # 😀 E1.0 grinning face\n'
        '263A                  ; unqualified         # ☺ E0.6 smiling face\n'
        '# group: People & Body\n# subgroup: hands\n'
        '1F44B 1F3FB           ; fully-qualified     # 👋🏻 E1.0 waving hand: light skin tone\n'
        '1F44B                 ; fully-qualified     # 👋 E0.6 waving hand\n',
        encoding='utf-8',
    )
    found = [(one.id, one.name, one.group, one.subgroup) for one in emoji_render.read_names(names)]
    assert found == [
        ('1f600', 'grinning face', 'Smileys & Emotion', 'face-smiling'),
        ('1f44b', 'waving hand', 'People & Body', 'hands'),
    ]


def test_drawing_again_gives_the_stored_pixels():
    """Needs Debian's font; any version of it draws the plain face within a few levels."""
    try:
        font = PIL.ImageFont.truetype(
            '/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf',
            emoji_render.FONT_SIZE,
            layout_engine=PIL.ImageFont.Layout.RAQM,
        )
    except OSError:
        pytest.skip('needs the font Noto Color Emoji: apt-get install fonts-noto-color-emoji')
    if not PIL.features.check('raqm'):
        pytest.skip('needs a Pillow with libraqm, which joins the parts of an emoji: apt-get install libraqm0')
    chosen, pictures = emoji_dataset.read('faces', 32)
    for i in (0, 50, 120):
        text = ''.join(chr(int(point, 16)) for point in chosen[i].id.split('-'))
        drawn = np.asarray(emoji_render.draw(font, text)).astype(int)
        assert abs(drawn - pictures[i]).mean() < 3
    assert emoji_render.draw(font, '\ue123') is None
    assert emoji_render.draw(font, '😀😀') is None
