"""What accelerators can do at most, by the tables of those who make or rent them, read in 2026. None was measured.

TPUs: https://docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e and /tpu7x (compute, memory, interconnect and data
center network a chip; of v4 the links of Jouppi et al., 2304.01433, Table 4, and the network of
https://jax-ml.github.io/scaling-book/tpus). GPUs: the data sheets https://www.nvidia.com/en-us/data-center/h100, /h200,
/a100, /l4 and /dgx-b200 (dense, without sparsity), and as their network the usual one of a node of eight: 400 Gbit/s a
GPU (ConnectX-7), 200 for an A100, 100 Gbit/s a node of L4.
"""

import dataclasses

GB, GIB = 10**9, 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """bf16, f32: matrix products, FLOP/s, of bfloat16 and of float32 as JAX computes them where nothing is said (on a
    TPU in bfloat16, on a GPU in TF32); memory: bytes; bandwidth: of it, bytes/s; links: bytes/s that the chip sends to
    its neighbours, all links together, half of what data sheets call bidirectional; network: bytes/s that it sends
    beyond its slice or node; devices: what JAX takes a chip for; kinds: beginnings of JAX's `device_kind`; node: GPUs
    that links join, 0 for a TPU; preset: share of the memory that JAX takes (of a GPU by default)."""

    bf16: float
    f32: float
    memory: float
    bandwidth: float
    links: float
    network: float
    kinds: tuple[str, ...]
    devices: int = 1
    node: int = 0
    preset: float = 1.0


def _tpu(tflops, gib, bandwidth, links, network, kinds, devices=1):
    peak = tflops * 1e12
    return Chip(peak, peak, gib * GIB, bandwidth * GB, links * GB, network * GB / 8, kinds, devices)


def _gpu(bf16, tf32, gb, bandwidth, links, network, kinds):
    # XLA takes three quarters of a GPU's memory unless it is told otherwise
    # (docs.jax.dev/en/latest/gpu_memory_allocation).
    rates = (bf16 * 1e12, tf32 * 1e12, gb * GB, bandwidth * GB, links * GB, network * GB / 8)
    return Chip(*rates, kinds, node=8, preset=0.75)


CHIPS = {
    'v4': _tpu(275, 32, 1200, 300, 50, ('TPU v4',)),
    'v5e': _tpu(197, 16, 819, 200, 25, ('TPU v5 lite', 'TPU v5e')),
    'v5p': _tpu(459, 95, 2765, 600, 50, ('TPU v5p', 'TPU v5')),
    'v6e': _tpu(918, 32, 1638, 400, 100, ('TPU v6 lite', 'TPU v6e')),
    'tpu7x': _tpu(2307, 192, 7380, 600, 100, ('TPU7x', 'TPU v7x'), devices=2),
    'a100': _gpu(312, 156, 80, 2039, 300, 200, ('NVIDIA A100-SXM4-80GB', 'NVIDIA A100 80GB')),
    'a100-40': _gpu(312, 156, 40, 1555, 300, 200, ('NVIDIA A100-SXM4-40GB', 'NVIDIA A100-PCIE-40GB')),
    'h100': _gpu(989, 494, 80, 3350, 450, 400, ('NVIDIA H100 80GB HBM3',)),
    'h200': _gpu(989, 494, 141, 4800, 450, 400, ('NVIDIA H200',)),
    'b200': _gpu(2250, 1100, 180, 8000, 900, 400, ('NVIDIA B200',)),
    'l4': _gpu(121, 60, 24, 300, 32, 12.5, ('NVIDIA L4',)),
}


def of_device(device_kind: str) -> tuple[str, Chip] | None:
    """The name and figures of the chip that JAX calls so; None for one that is not in the table."""
    found = [
        (max(len(kind) for kind in chip.kinds if device_kind == kind or device_kind.startswith(f'{kind} ')), name)
        for name, chip in CHIPS.items()
        if any(device_kind == kind or device_kind.startswith(f'{kind} ') for kind in chip.kinds)
    ]
    if not found:
        return None
    name = max(found)[1]
    return name, CHIPS[name]


def peak(chip: Chip, dtype: str) -> float:
    """FLOP/s of one of the chip's devices for what a network computes in dtype."""
    return (chip.bf16 if dtype == 'bfloat16' else chip.f32) / chip.devices
