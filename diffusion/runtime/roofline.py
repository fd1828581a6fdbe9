"""How long a program takes at least: as the busiest part of the hardware needs (Williams et al. 2009)."""

import dataclasses

from diffusion.runtime import chips, hlo


@dataclasses.dataclass(frozen=True)
class Bound:
    """Seconds that the matrix units, the memory, the links to neighbours and the network between slices are busy, each
    at its highest rate."""

    matrix: float
    memory: float
    links: float
    network: float

    @property
    def seconds(self) -> float:
        """All at once, which no program reaches."""
        return max(dataclasses.astuple(self))

    @property
    def limit(self) -> str:
        """Which of them it is."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def bound(cost: hlo.Cost, chip: chips.Chip, dtype: str, neighbours: int) -> Bound:
    """neighbours: devices a slice, or a node, between which there is only the network; dtype: of the network."""
    sent = [one.sent(neighbours) for one in cost.collectives]
    near, far = (sum(sizes) for sizes in zip(*sent)) if sent else (0.0, 0.0)
    work = cost.work if not chip.node else cost.flops
    share = chip.devices  # of a chip's rates each of its devices has its part
    return Bound(
        work / chips.peak(chip, dtype),
        cost.bytes / (chip.bandwidth / share),
        near / (chip.links / share),
        far / (chip.network / share),
    )
