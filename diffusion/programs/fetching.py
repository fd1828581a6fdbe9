"""`diffusion evaluate fetch`: the published weights of feature networks, each known by its hash."""

import dataclasses
import hashlib
import urllib.request
from pathlib import Path

from diffusion import usage
from diffusion.runtime import status, writer

CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Published:
    """A file that anybody can fetch."""

    url: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it is looked for."""
        return Path.home() / '.cache' / 'diffusion' / self.url.rpartition('/')[2]


_DINOV2 = 'https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{0}14/dinov2_vit{0}14_pretrain.pth'
FILES = {
    'inception': Published(
        'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth',
        '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2',
    ),
    'dinov2-s': Published(_DINOV2.format('s'), 'b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9'),
    'dinov2-b': Published(_DINOV2.format('b'), '0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73'),
    'dinov2-l': Published(_DINOV2.format('l'), 'd5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428'),
    'dinov2-g': Published(_DINOV2.format('g'), 'baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3'),
}


def main(argv: list[str]) -> int:
    """Downloads a file to where `--features` looks for it. Exit status 0, or 2: nothing is left of another file."""
    parser = usage.Parser('evaluate fetch', ' '.join(__doc__.split(': ', 1)[1].split()))
    parser.add_argument('network', metavar='NETWORK', help=f'one of {", ".join(FILES)}')
    parser.add_argument('--url', help='a mirror, which must hold the same bytes (default: where they were published)')
    args, overrides = parser.parse(argv)
    with usage.checked():
        if overrides:
            raise ValueError('--config.* belongs to a run')
        if args.network not in FILES:
            raise ValueError(usage.unknown('network', args.network, FILES))
        wanted = FILES[args.network]
        if wanted.path.exists():
            raise ValueError(f'{wanted.path} is there already')
        fetch(args.url or wanted.url, wanted)
    print(f'{args.network} in {wanted.path}, sha256 {wanted.sha256} as published: --features={args.network}')
    return 0


def fetch(url: str, wanted: Published) -> None:
    """Raises ValueError for other bytes, OSError where there are none; the file appears whole or not at all."""
    mark, place = hashlib.sha256(), wanted.path
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, writer.atomic(place) as file:
            with status.Status('bytes', int(answer.headers.get('Content-Length') or 0)) as line:
                while part := answer.read(CHUNK):
                    file.write(part)
                    mark.update(part)
                    line.update(file.tell())
            if mark.hexdigest() != wanted.sha256:
                raise ValueError(
                    f'{url} holds {file.tell():,} bytes of sha256 {mark.hexdigest()}, not {wanted.sha256}: nothing is '
                    'kept; name another mirror with --url'
                )
    except OSError as error:
        raise OSError(
            f'{url} cannot be fetched ({error}): name a mirror with --url, or bring the file to {place}'
        ) from error
