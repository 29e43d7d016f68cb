"""Media files as phones, recorders and editors make them, made here: any container and codec, with the stamps that a test wants."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

RATE = 48_000


@dataclass(frozen=True)
class Sound:
    """A sound track."""

    samples: np.ndarray  # [n] or [n, channels]
    codec: str
    layout: str = "mono"
    rate: int = RATE
    moved: Callable[[float], float] = lambda seconds: seconds  # where in time a packet goes
    is_default: bool | None = None  # None: as the container has it


@dataclass(frozen=True)
class VideoFile:
    """A frame track: grey levels, each at its time."""

    levels: list[float]  # 0..255
    times: list[float]  # seconds
    size: tuple[int, int] = (64, 48)  # width, height
    codec: str = "libx264"


def write(path: Path, *tracks: Sound | VideoFile, options: dict[str, str] | None = None) -> Path:
    with av.open(str(path), "w", options=options or {}) as container:
        packets = [
            packet for track in tracks for packet in (_sound(container, track) if isinstance(track, Sound) else _film(container, track))
        ]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def sweep(seconds: float, rate: int = RATE, level: float = 0.4) -> np.ndarray:
    """[n]: a tone that rises, so that a shift in time shows."""
    t = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * (200 * t + 60 * t**2))).astype(np.float32)


def _sound(container, track: Sound) -> list[av.Packet]:
    samples = track.samples if track.samples.ndim == 2 else track.samples[:, None]
    stream = container.add_stream(track.codec, rate=track.rate, layout=track.layout)
    if track.is_default is not None:
        stream.disposition = Disposition.default if track.is_default else Disposition(0)
    to_own = av.AudioResampler(
        format=stream.format, layout=track.layout, rate=track.rate, frame_size=stream.codec_context.frame_size or 1024
    )
    packets, start = [], 0
    for start in range(0, len(samples), track.rate):
        piece = np.ascontiguousarray(samples[start : start + track.rate], np.float32)
        frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="flt", layout=track.layout)
        frame.sample_rate, frame.pts, frame.time_base = track.rate, start, Fraction(1, track.rate)
        packets += [packet for own in to_own.resample(frame) for packet in stream.encode(own)]
    packets += [packet for own in to_own.resample(None) for packet in stream.encode(own)] + stream.encode(None)
    for packet in packets:
        seconds = track.moved(float(packet.pts * packet.time_base))
        packet.pts = packet.dts = round(seconds / packet.time_base)
    return packets


def _film(container, track: VideoFile) -> list[av.Packet]:
    stream = container.add_stream(track.codec, rate=30)
    stream.width, stream.height = track.size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, 19_200)
    packets = []
    for level, time in zip(track.levels, track.times, strict=True):
        frame = av.VideoFrame.from_ndarray(np.full((track.size[1], track.size[0], 3), round(level), np.uint8), format="rgb24")
        frame.pts, frame.time_base = round(time * 19_200), Fraction(1, 19_200)
        packets += stream.encode(frame)
    return packets + stream.encode(None)
