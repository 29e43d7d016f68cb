"""How large the benchmark is: on a card the published sizes, on a CPU the same parts as small as they can be."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes are pixels. Chunks are counted with the first, which warms up."""

    name: str
    preset: str  # of random weights
    precision: str
    wide: tuple[int, int]  # width and height
    square: tuple[int, int]
    denoised: int  # chunks by which each way to denoise is timed
    film: int  # chunks that are written to a file
    firsts: int  # first frames
    held: int  # chunks whose memory is read
    profiled: int  # chunks
    peers_at: int  # latent frame at which a chunk of the peers and of ours begins
    peers_repeats: int
    peers_chunks: int  # that are counted of each repeat


CARD = Scale(
    name="card",
    preset="wan-1.3b",
    precision="bf16",
    wide=(832, 480),
    square=(512, 512),
    denoised=24,
    film=200,
    firsts=7,
    held=40,
    profiled=4,
    peers_at=18,  # the last chunk of the 21 frames that the Self-Forcing pipeline remembers at 832 x 480
    peers_repeats=3,
    peers_chunks=1,
)
TINY = Scale(
    name="tiny",
    preset="small",
    precision="fp32",
    wide=(64, 48),
    square=(32, 32),
    denoised=5,
    film=6,
    firsts=2,
    held=6,
    profiled=2,
    peers_at=18,
    peers_repeats=2,
    peers_chunks=1,
)
