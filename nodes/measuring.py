"""How fast it is here, and how good the video is: numbers as JSON, and an image of them to look at and to share.

What is measured and how is said in `kf_core.metrics`; here it is only shown.
"""

import json
from dataclasses import asdict

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageDraw

from ..kf_core.errors import KnotForcingError
from ..kf_core.media.playback import frames, probe
from ..kf_core.metrics.drift import Drift
from ..kf_core.metrics.flicker import Flicker
from ..kf_core.metrics.seams import Seams
from ..kf_core.metrics.speed import machine, measure
from ..kf_core.planning.presets import TINY
from ..kf_core.timeline import latent_frames
from .host import preview
from .host.running import in_memory, peak_vram_mib
from .loaders import CATEGORY
from .tuning import tuned
from .wires import Recipe, StreamWire

PAPER, INK, SOFT, ACCENT = (250, 250, 247), (30, 32, 36), (200, 203, 208), (196, 62, 48)
MIB = 2**20


class PerformanceCard(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingPerformance",
            display_name="Performance Card",
            category=CATEGORY,
            description="Runs a stream for some chunks and says how fast this machine is: FPS, first frame, memory.",
            search_aliases=["benchmark", "fps", "speed", "vram"],
            inputs=[
                StreamWire.Input("stream", tooltip="What to run, from Knot Forcing Sampler. The frames are thrown away."),
                io.Vae.Input("vae", tooltip="The VAE from Load KF Model, or any Wan 2.1 VAE."),
                io.Int.Input(
                    "chunks", default=8, min=2, max=10000, tooltip="How many chunks to make, of usually 12 frames. The first warms up."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="card", tooltip="The numbers as an image."),
                io.String.Output(display_name="json", tooltip="The numbers, to keep and to compare."),
            ],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, stream: Recipe, vae, chunks: int) -> io.NodeOutput:
        how = tuned(stream, vae)
        with in_memory(stream, how.vae, how.decode_plan) as running:
            possible = 1 + running.settings.chunk_of(latent_frames(running.num_frames) - 1)
            chunks = min(chunks, possible)
            speed = measure(running, chunks, progress=lambda time: preview.stop_if_cancelled())
            facts = {
                "model": running.model.card.name,
                "size": f"{running.anchor.latent.shape[-1] * 8}x{running.anchor.latent.shape[-2] * 8}",
                "precision": str(running.model.dtype).removeprefix("torch."),
                "frames": "by a tiny decoder" if how.decode_plan.decoder == TINY else "by the VAE",
                "frames per second": round(speed.frames_per_second, 2),
                "times real time": round(speed.times_real_time, 3),
                "first frame after, s": round(speed.first_frame, 3),
                "RAM of the process, MiB": round(speed.chunks[-1].memory / MIB),
                "VRAM at most, MiB": peak_vram_mib(),
                "chunks": chunks,
                "machine": machine(),
            }
        preview.set_status(cls.hidden.unique_id, f"{speed.frames_per_second:.1f} FPS, first frame after {speed.first_frame:.2f} s")
        return io.NodeOutput(_image_of(_card(facts)), json.dumps(facts, indent=1))


class SeamAndDriftMeter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingMeter",
            display_name="Seam & Drift Meter",
            category=CATEGORY,
            description="Reads a finished video and says whether chunks can be seen in it, and whether its colours wander off.",
            search_aliases=["quality", "flicker", "evaluate", "temporal consistency"],
            inputs=[
                io.Video.Input("video", tooltip="The VIDEO of Streaming Decode or Append Segment."),
                io.Int.Input(
                    "chunk",
                    default=3,
                    min=1,
                    max=64,
                    advanced=True,
                    tooltip="Latent frames in a chunk, as the video was made with: where its seams are.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="Mean colour over time, and the numbers."),
                io.String.Output(display_name="json", tooltip="seam_ratio: 1 means seams cannot be told from the rest. drift: RGB 0..1."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, video, chunk: int) -> io.NodeOutput:
        source = video.get_stream_source()
        if not isinstance(source, str):
            raise KnotForcingError("The video lies in memory and not in a file. Connect the VIDEO of Streaming Decode or of Load Video.")
        fps = probe(source).fps
        meters = Seams(chunk), Drift(fps), Flicker(fps)
        colours, block = [], []
        for frame in frames(source):
            block.append(frame)
            if len(block) == 32:
                _feed(meters, block, colours)
        _feed(meters, block, colours)
        seam, drift, flicker = (meter.result() for meter in meters)
        facts = {
            "frames": len(colours),
            "seam_ratio": seam.ratio,
            "seams": seam.num_seams,
            "drift_per_minute": drift.per_minute,
            "last_fifth_from_first": drift.last_fifth,
            **{f"flicker_{name}": value for name, value in asdict(flicker).items()},
        }
        ratio = "no seam" if seam.ratio is None else f"seam ratio {seam.ratio:.2f}"
        preview.set_status(cls.hidden.unique_id, f"{ratio}, drift {drift.per_minute:.3f} a minute, flicker {flicker.score:.1f}")
        return io.NodeOutput(_image_of(_plot(np.array(colours), fps, facts)), json.dumps(facts, indent=1))


def _feed(meters, block: list[torch.Tensor], colours: list) -> None:
    preview.stop_if_cancelled()
    if block:
        frames = torch.stack(block)
        colours += frames.mean((1, 2)).tolist()
        for meter in meters:
            meter.add(frames)
        block.clear()


def _card(facts: dict) -> Image.Image:
    image = Image.new("RGB", (760, 60 + 34 * len(facts)), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((24, 18), "Knot Forcing on this machine", INK, font_size=22)
    for row, (name, value) in enumerate(facts.items()):
        y = 58 + 34 * row
        draw.line((24, y - 4, 736, y - 4), SOFT)
        draw.text((24, y + 2), name, INK, font_size=16)
        draw.text((270, y + 2), str(value)[:62], ACCENT if "second" in name else INK, font_size=16)
    return image


def _plot(colours: np.ndarray, fps: float, facts: dict) -> Image.Image:
    """Mean red, green and blue over time, each from its own beginning, with the numbers above."""
    image = Image.new("RGB", (900, 420), PAPER)
    draw = ImageDraw.Draw(image)
    shown = {name: value for name, value in facts.items() if isinstance(value, float)}
    draw.text((24, 14), "   ".join(f"{name} {value:.3f}" for name, value in shown.items())[:110], INK, font_size=14)
    left, right, top, bottom = 60, 880, 60, 380
    moved = colours - colours[:1]
    reach = max(0.05, float(np.abs(moved).max()))
    for level in (-reach, 0.0, reach):
        y = (top + bottom) / 2 - level / reach * (bottom - top) / 2
        draw.line((left, y, right, y), SOFT)
        draw.text((8, y - 8), f"{level:+.2f}", INK, font_size=13)
    for channel, ink in enumerate(((205, 60, 50), (60, 150, 80), (60, 90, 200))):
        x = np.linspace(left, right, max(2, len(moved)))
        y = (top + bottom) / 2 - moved[:, channel] / reach * (bottom - top) / 2
        draw.line(list(zip(x.tolist(), y.tolist(), strict=False)), ink, width=2)
    draw.text((left, 388), f"mean colour against the first frame, over {len(colours) / fps:.1f} s", INK, font_size=13)
    return image


def _image_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, np.float32) / 255)[None]


NODES = [PerformanceCard, SeamAndDriftMeter]
