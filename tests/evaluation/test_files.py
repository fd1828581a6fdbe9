"""Files of tensors: what PyTorch and safetensors write is read, and nothing in them is ever carried out."""

import collections
import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from diffusion.evaluation import tensorfile, torchfile
from diffusion.nets import safetensors

VALUES = np.arange(12, dtype=np.float32)


def text(word):
    return b'X' + len(word).to_bytes(4, 'little') + word.encode()


def name(module, word):
    return f'c{module}\n{word}\n'.encode()


def number(value):
    return b'J' + int(value).to_bytes(4, 'little', signed=True)


def program(shape=(2, 3), strides=(3, 1), offset=1, count=12, rebuild=('torch._utils', '_rebuild_tensor_v2')):
    """The pickle of {'w': a tensor}, instruction by instruction, as torch.save writes it."""
    storage = b'(' + text('storage') + name('torch', 'FloatStorage') + text('0') + text('cpu') + number(count) + b't'
    sizes = [b'(' + b''.join(map(number, some)) + b't' for some in (shape, strides)]
    hooks = name('collections', 'OrderedDict') + b')R'
    tensor = name(*rebuild) + b'((' + storage[1:] + b'Q' + number(offset) + b''.join(sizes) + b'\x89' + hooks + b'tR'
    return b'\x80\x02' + name('collections', 'OrderedDict') + b')R(' + text('w') + tensor + b'u.'


def archive(data, stored=None):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as made:
        made.writestr('weights/data.pkl', data)
        made.writestr('weights/data/0', VALUES.tobytes() if stored is None else stored)
    return file.getvalue()


def older(data):
    parts = [pickle.dumps(one, 2) for one in (torchfile.MAGIC, 1001, {'little_endian': True})]
    return b''.join([*parts, data, pickle.dumps(['0'], 2), (12).to_bytes(8, 'little'), VALUES.tobytes()])


@pytest.mark.parametrize('written', [archive, older])
def test_a_tensor_is_the_part_of_its_storage_that_is_said(written):
    found = torchfile.read(written(program()))
    np.testing.assert_array_equal(found['w'], VALUES[1:7].reshape(2, 3))
    turned = torchfile.read(written(program((3, 2), (1, 3), 4)))
    np.testing.assert_array_equal(turned['w'], VALUES[4:10].reshape(2, 3).T)


def test_what_pytorch_writes_is_read(tmp_path):
    torch = pytest.importorskip('torch', reason="needs PyTorch, to write a file that we read: pip install '.[parity]'")
    x = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = collections.OrderedDict(
        [('a', x), ('b.part', x[1:3, ::2]), ('c', torch.nn.Parameter(x.T)), ('n', torch.tensor(3))]
    )
    state['h'] = x.half()
    state._metadata = {'': {'version': 1}}
    for zipped in (True, False):
        path = tmp_path / f'{zipped}.pth'
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        found, _, mark = tensorfile.read(path)
        assert set(found) == set(state) and len(mark) == 64
        for key, value in state.items():
            np.testing.assert_array_equal(found[key], value.detach().numpy())
            assert found[key].dtype == value.detach().numpy().dtype


class Harm:
    def __reduce__(self):
        return (print, ('harm',))


@pytest.mark.parametrize(
    'data,say',
    [
        (archive(pickle.dumps({'w': Harm()}, 2)), "'__builtin__.print'"),
        (archive(pickle.dumps({'w': Harm()}, 4)), "'builtins.print'"),
        (older(pickle.dumps({'w': Harm()}, 2)), "'__builtin__.print'"),
        (archive(program(rebuild=('os', 'system'))), "'os.system'"),
        (archive(program((5, 3))), 'beyond its storage'),
        (archive(program((2, 3), (-3, 1))), 'no shape'),
        (archive(program(offset=-1)), 'no shape'),
        (archive(program(), VALUES[:5].tobytes()), '5 numbers where 12'),
        (archive(program(count=2**31 - 1)), 'numbers where'),
        (archive(program()[:-9]), 'newline found|damaged'),
        (archive(program())[:-30], 'damaged'),
        (older(program(count=11)), 'not of the size'),
        (pickle.dumps([1, 2], 2), 'neither an archive'),
        (archive(pickle.dumps([1, 2], 2)), 'no dictionary'),
        (archive(b'\x80\x02u.'), 'without a beginning'),
    ],
)
def test_what_is_no_file_of_tensors_is_refused_and_not_run(tmp_path, capsys, data, say):
    path = tmp_path / 'x.pth'
    path.write_bytes(data)
    with pytest.raises(ValueError, match=say) as refused:
        tensorfile.read(path)
    assert '\n' not in str(refused.value) and 'harm' not in capsys.readouterr().out


def test_safetensors_come_back_as_they_were(tmp_path):
    tensors = {'b': VALUES.reshape(3, 4).T, 'a': np.float32(2.5).reshape(())}
    path = tmp_path / 'x.safetensors'
    path.write_bytes(safetensors.packed(tensors, {'made': 'by hand'}))
    found, told, mark = tensorfile.read(path)
    assert told == {'made': 'by hand'} and set(found) == {'a', 'b'}
    for key, value in tensors.items():
        np.testing.assert_array_equal(found[key], value)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8 : 8 + size])
    begin, end = header['b']['data_offsets']
    np.testing.assert_array_equal(
        np.frombuffer(data[8 + size + begin : 8 + size + end], '<f4'), VALUES.reshape(3, 4).T.ravel()
    )
    for damaged in (data[:-4], data[:50], b'', b'\x00' * 20, data.replace(b'"F32"', b'"F99"')):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match='x.safetensors'):
            tensorfile.read(path)
    assert len(mark) == 64


@pytest.mark.parametrize('size', [0x80, 0x280, int.from_bytes(b'PK', 'little')])
def test_safetensors_whose_length_looks_like_pytorchs_are_read(tmp_path, size):
    path = tmp_path / 'x.safetensors'
    header = '{"a": {"dtype": "F32", "shape": [12], "data_offsets": [0, 48]}}'.ljust(size).encode()
    path.write_bytes(len(header).to_bytes(8, 'little') + header + VALUES.tobytes())
    assert path.read_bytes()[:1] == b'\x80' or path.read_bytes()[:2] == b'PK'
    np.testing.assert_array_equal(tensorfile.read(path)[0]['a'], VALUES)
