"""Speed, side by side with what else one would use: medians and spreads, and shares of what the machine can do.

    python benchmarks/speed.py [--only=step,sampling,data,startup,saving,likelihood] [--seconds=3] [--rounds=2]
                               [--large] [--json=FILE] [--write=docs/speed.md]

Every measurement has a process of its own, and the sides take turns, so that they neither fight for the cores nor
meet a machine busy with different things. A side that is not installed is left out, with a line that says so.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import measuring
import page
import parts


def main(argv: list[str]) -> int:
    """Exit status 0, 2 for a wrong call, 1 where a target is missed on a machine that was quiet."""
    args = _parser().parse_args(argv)
    begin = time.perf_counter()
    report = {
        'machine': measuring.machine_line(),
        'date': datetime.date.today().isoformat(),
        'command': ' '.join(['python benchmarks/speed.py', *argv]),
        'load_before': os.getloadavg()[0],
        'parts': {},
    }
    print(f'{report["machine"]}; load {report["load_before"]:.1f} before the start', flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        bench = parts.Bench(args.seconds, args.rounds, args.large, args.samplers, scratch)
        report['ceilings'] = bench.ceilings()
        print(page.ceilings(report['ceilings']), flush=True)
        for name in args.only:
            found = parts.PARTS[name](bench, report['ceilings'])
            report['parts'][name] = {**found, 'others': bench.settle()}
            report['seconds'] = time.perf_counter() - begin
            print('\n'.join(page.part(name, report['parts'][name])), flush=True)
            _write(args, report)  # after each part: what is measured is kept
    print(f'\n{page.verdict(report)}\ntook {report["seconds"]:.0f} s')
    missed = any(not one['met'] for part in report['parts'].values() for one in part['targets'])
    return int(missed and page.quiet(report))


def _write(args, report) -> None:
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    if args.write:
        Path(args.write).write_text(page.whole(report), encoding='utf-8')


def _parser():
    parser = argparse.ArgumentParser(prog='python benchmarks/speed.py', description=__doc__.splitlines()[0])
    parser.add_argument(
        '--only', type=_names, default=list(parts.PARTS), metavar='LIST', help=f'of {",".join(parts.PARTS)}'
    )
    parser.add_argument('--seconds', type=float, default=3.0, help='how long each measurement runs (default: 3)')
    parser.add_argument('--rounds', type=int, default=2, help='turns of each side (default: 2)')
    parser.add_argument('--large', action='store_true', help='larger networks too, which take minutes on a CPU')
    parser.add_argument(
        '--samplers', default='heun,dpmpp_2m,ancestral', metavar='LIST', help='which samplers (default: some)'
    )
    parser.add_argument('--json', metavar='FILE', help='also write everything there')
    parser.add_argument('--write', metavar='FILE', help='also write the page there: docs/speed.md')
    return parser


def _names(text):
    names = text.split(',')
    for name in names:
        if name not in parts.PARTS:
            raise argparse.ArgumentTypeError(f'no part {name!r}: there are {", ".join(parts.PARTS)}')
    return names


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
