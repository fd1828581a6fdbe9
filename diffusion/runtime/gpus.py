"""What XLA's compiler for GPUs asks of a GPU, for those that are not here.

By NVIDIA's CUDA C++ Programming Guide (technical specifications by compute capability) and the white papers of the
Ampere, Ada, Hopper and Blackwell architectures (multiprocessors, clock, second cache).
"""

import dataclasses

from diffusion.runtime import chips


@dataclasses.dataclass(frozen=True)
class Gpu:
    """capability: of CUDA; cores: multiprocessors; units: of float32 in each; clock: GHz at most; cache: bytes of the
    second one; shared: bytes of shared memory a multiprocessor; threads: a multiprocessor at most."""

    capability: tuple[int, int]
    cores: int
    units: int
    clock: float
    cache: int
    shared: int
    threads: int = 2048


MIB, KIB = 2**20, 2**10
GPUS = {
    'a100': Gpu((8, 0), 108, 64, 1.41, 40 * MIB, 164 * KIB),
    'a100-40': Gpu((8, 0), 108, 64, 1.41, 40 * MIB, 164 * KIB),
    'l4': Gpu((8, 9), 58, 128, 2.04, 48 * MIB, 100 * KIB, threads=1536),
    'h100': Gpu((9, 0), 132, 128, 1.98, 50 * MIB, 228 * KIB),
    'h200': Gpu((9, 0), 132, 128, 1.98, 50 * MIB, 228 * KIB),
    'b200': Gpu((10, 0), 148, 128, 1.965, 126 * MIB, 228 * KIB),
}


def target(kind: str) -> str:
    """XLA's `GpuTargetConfigProto` of a GPU of `chips.CHIPS`, as text."""
    gpu, chip = GPUS[kind], chips.CHIPS[kind]
    major, minor = gpu.capability
    # From Hopper on there are instructions of one architecture alone, which XLA uses where they are named.
    special = ' feature_extension: ACCELERATED_FEATURES' if major >= 9 else ''
    return f"""
        gpu_device_info {{
          threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {gpu.threads}
          shared_memory_per_block: {48 * KIB} shared_memory_per_block_optin: {gpu.shared - KIB}
          shared_memory_per_core: {gpu.shared}
          core_count: {gpu.cores} fpus_per_core: {gpu.units} clock_rate_ghz: {gpu.clock}
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          l2_cache_size: {gpu.cache} memory_bandwidth: {chip.bandwidth:.0f} device_memory_size: {chip.memory:.0f}
          cuda_compute_capability {{ major: {major} minor: {minor}{special} }}
        }}
        platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 12 }} device_description_str: "{chip.kinds[0]}"
    """
