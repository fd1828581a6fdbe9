"""The flags that say which seeds, and so how many pictures."""


def add_flags(parser, default: int) -> None:
    parser.add_argument('--num', type=int, metavar='N', help=f'how many: seeds 0 to N - 1 (default: {default})')
    parser.add_argument('--seeds', metavar='LIST', help='which seeds: 17,42 or 100-199')


def read(args, default: int) -> list[int]:
    """The seeds, each once. Raises ValueError."""
    if args.seeds is None:
        num = default if args.num is None else args.num
        if num < 1:
            raise ValueError(f'--num={num}: at least 1')
        return list(range(num))
    seeds = []
    for part in args.seeds.split(','):
        first, dash, last = part.strip().partition('-')
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f'--seeds={args.seeds}: whole numbers and ranges with commas, as 17,42 or 100-199')
        seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    if not seeds or max(seeds) >= 2**31:
        raise ValueError(f'--seeds={args.seeds}: seeds lie in [0, 2**31)')
    if len(set(seeds)) < len(seeds) or (args.num is not None and args.num != len(seeds)):
        raise ValueError(f'--seeds={args.seeds} names a seed twice, or --num={args.num} contradicts it')
    return seeds
