"""What `diffusion plan` says of every shipped config on the hardware that it names, and of DiT-XL/2 on pods and GPUs.

    python benchmarks/plans.py [--only=NAME,...] [--json=plans.json]

Needs the compilers (pip install '.[plan]'), no TPU, no GPU, and 20 minutes of 2 cores. The memory and the FLOPs of
DiT-XL/2 (Peebles & Xie 2212.09748: latents of 32 x 32 x 4, patches of 2) stand beside what is counted by hand.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from diffusion import usage

ROOT = Path(__file__).parents[1]
XL = ('--config=configs/imagenet256_dit.py', '--image=32x32x4', '--classes=1000', '--config.net.patch=2')
WIDTH, DEPTH, TOKENS, CHANNELS = 1152, 28, 256, 4
# name: topology, flags
CASES = {
    'xl_v5e': ('v5e:16x16', (*XL, '--config.runtime.fsdp=16')),
    'xl_v5p': ('v5p:4x4x4', (*XL, '--config.runtime.fsdp=16')),
    'xl_v6e': ('v6e:8x8', (*XL, '--config.runtime.fsdp=16')),
    'xl_h100': ('h100:64', (*XL, '--config.runtime.fsdp=8')),
    # The same with all parameters on every chip: what splitting them costs.
    'xl_v5e_whole': ('v5e:16x16', (*XL, '--config.runtime.fsdp=1')),
    'xl_v5p_whole': ('v5p:4x4x4', (*XL, '--config.runtime.fsdp=1')),
    'imagenet256_dit': ('v5e:4x8', ('--config=configs/imagenet256_dit.py',)),
    # At full effort the compiler takes over ten minutes for each U-Net.
    'cifar10_edm': ('v5e:2x4', ('--config=configs/cifar10_edm.py', '--quick')),
    'cifar10_vp': ('v5e:2x4', ('--config=configs/cifar10_vp.py', '--quick')),
    'imagenet64_edm': ('v4:2x4x4', ('--config=configs/imagenet64_edm.py', '--quick')),
    'folder': ('v5e:1x1', ('--config=configs/folder.py', '--image=32x32x3', '--quick')),
    'emoji_dit': ('v5e:1x1', ('--config=configs/emoji_dit.py',)),
}


def main(argv: list[str]) -> int:
    parser = usage.Parser('plans', __doc__.splitlines()[0])
    parser.prog = 'python benchmarks/plans.py'
    parser.add_argument('--only', metavar='NAMES', help=f'with commas, of: {", ".join(CASES)}')
    parser.add_argument('--json', metavar='FILE', help='all plans in one file, those that are there already kept')
    args, _ = parser.parse(argv)
    plans = json.loads(Path(args.json).read_text()) if args.json and Path(args.json).exists() else {}
    for name in args.only.split(',') if args.only else CASES:
        if name not in CASES:
            raise usage.UsageError(usage.unknown('plan', name, CASES))
        plans[name] = plan(name)
        if args.json:
            Path(args.json).write_text(json.dumps(plans, indent=1))
        print('\n'.join(said(name, plans[name])), flush=True)
    return 0


def plan(name: str) -> dict:
    topology, flags = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'plan.json'
        words = [sys.executable, '-m', 'diffusion.cli', 'plan', f'--topology={topology}', *flags, f'--out={out}']
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            told = [line for line in done.stderr.splitlines() if 'Check failed' in line] or done.stderr.splitlines()
            raise usage.Fault(f'{name}: status {done.returncode}: {told[-1].strip()}')
        return json.loads(out.read_text()) | {'said': done.stdout}


def said(name: str, found: dict) -> list[str]:
    """What is printed of a plan; of DiT-XL/2 beside the hand counts."""
    lines = [f'## {name}', '', found['said']]
    train = found['programs'].get('train', {})
    if not name.startswith('xl_') or 'flops' not in train:
        return lines
    weights, flops = by_hand()
    batch, split = 1024, found['mesh']['fsdp']
    rows = [
        ('weights', found['weights'], weights),
        ('FLOP of a step, the model', found['training']['model_flops'], flops * batch),
        ('FLOP of a step and chip, compiled', train['flops'], flops * batch / found['chips']),
        ('bytes of parameters a chip', found['state']['parameters'], 4 * weights / split),
        ('bytes of Adam a chip', found['state']['optimizer'], 8 * weights / split),
        ('bytes of the average a chip', found['state']['averages'], 4 * weights / split),
    ]
    lines += ['| | plan | by hand | ratio |', '|---|---|---|---|']
    lines += [f'| {what} | {one:.4g} | {other:.4g} | {one / other:.3f} |' for what, one, other in rows]
    lines += ['', '| exchanged | from | GB a chip | times |', '|---|---|---|---|']
    for one in train['largest']:
        lines.append(f'| {one["kind"]} | {one["from"]} | {one["bytes"] / 1e9:.3f} | {one["times"]} |')
    return lines


def by_hand() -> tuple[float, float]:
    """(weights, FLOP of a training step for one image) of DiT-XL/2: six for each weight and token that it meets, which
    those of the modulation and of the conditions do once an image, and attention's two products."""
    w = WIDTH
    block = 4 * (w * w + w) + (4 * w * w + 4 * w) + (4 * w * w + w)
    patch = 4 * CHANNELS
    token = DEPTH * block + (patch * w + w) + (w * patch + patch)
    image = DEPTH * (6 * w * w + 6 * w) + (2 * w * w + 2 * w) + 2 * (w * w + w)
    weights = token + image + 1001 * w
    attention = 3 * DEPTH * 4 * TOKENS * TOKENS * w
    return weights, 6 * (token * TOKENS + image) + attention


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except (usage.UsageError, usage.Fault) as error:
        print(f'plans: {error}', file=sys.stderr)
        sys.exit(2)
