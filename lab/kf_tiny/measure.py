"""The numbers of a model card: held-out identities speak with held-out voices, through the shipped stream, beside their truth.

Each sitter is drawn by the procedural portraits with a motion and a voice that training never met. The stream gets the first frame, the
sound and, in one half of the protocol, the pose; what it makes is measured against the drawn clip. The codec row, the truth through the
autoencoder and back, is the ceiling. Source: the measures are `kf_core.metrics`'s.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kf_core.conditioning.anchor import Anchor
from kf_core.conditioning.audio import AudioArray
from kf_core.conditioning.driving import Driving
from kf_core.conditioning.openpose import draw_pose
from kf_core.metrics.contact_sheet import contact_sheet
from kf_core.metrics.reader import PortraitReader, load_reader
from kf_core.metrics.report import Report, evaluate
from kf_core.metrics.speed import computed_on
from kf_core.models.causal import Generator
from kf_core.session.stream import Stream
from kf_core.settings import RolloutSettings
from kf_core.timeline import LatentSpan, PixelSpan, latent_frames, pixel_frames
from kf_core.types import SAMPLE_RATE, LatentChunk
from kf_core.vae.streaming import DecoderState, EncoderState, VideoDecoder, encode_clip, encode_frames
from kf_core.vae.wan import SPATIAL_STRIDE, WanVAE

from .checkpointing import commit
from .drawing import render
from .portraits import sample_identities, sample_motion, with_mouth
from .speech_dataset import FPS, Library

BLOCK = 61  # frames encoded at once
SHOWN_SECONDS, SHOWN_SIDE = 6, 192  # of the moving frames for the README, pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Sitter:
    """One held-out clip: what was drawn, what was said, where the head was."""

    seed: int
    frames: Tensor  # [f, h, w, 3] RGB 0..1
    samples: np.ndarray  # float32, 16 kHz
    opening: Tensor  # [f] 0..1
    mouth_boxes: Tensor  # [f, 4] pixels
    pose: Tensor  # [f, 3, h/8, w/8]


@dataclass(frozen=True, eq=False)
class DrawnPose:
    """The sitter's own pose frames, already on the latent grid."""

    frames: Tensor  # [f, 3, h, w]
    fps: float = FPS

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.fps

    def open(self) -> "DrawnPose":
        return self

    def between(self, span: PixelSpan, fps: float, latent_h: int, latent_w: int) -> Tensor:
        inside = torch.tensor([min(max(0, step), len(self.frames) - 1) for step in span])
        seen = torch.tensor([0 <= step < len(self.frames) for step in span])
        return self.frames[inside] * seen[:, None, None, None]


def sit(seed: int, seconds: float, size: int, library: Library) -> Sitter:
    """The held-out clip of this seed; a pure function of its arguments."""
    count = pixel_frames(latent_frames(round(seconds * FPS)))
    generator = torch.Generator().manual_seed(seed)
    take = library.cut(count, np.random.default_rng([seed, 7]))
    motion = with_mouth(sample_motion(1, count, generator, FPS, 1.0), *torch.from_numpy(take.mouth)[:, None])
    drawn = render(sample_identities(1, generator, "held-out"), motion, size)
    return Sitter(
        seed=seed,
        frames=drawn.frames[0].permute(0, 2, 3, 1),
        samples=take.samples[: round(count * SAMPLE_RATE / FPS)],
        opening=motion.mouth_open[0],
        mouth_boxes=drawn.mouth_box[0],
        pose=draw_pose(drawn.keypoints[0], size // SPATIAL_STRIDE, size // SPATIAL_STRIDE),
    )


def stream_of(
    sitter: Sitter, model: Generator, vae: WanVAE, settings: RolloutSettings | None = None, *, with_pose: bool = True, seed: int = 0
) -> Stream:
    """The stream a user would have made: first frame, sound, and the pose if it is given."""
    portrait = sitter.frames[:1].permute(3, 0, 1, 2)[None].to(model.device)
    driving = Driving(audio=AudioArray(sitter.samples, SAMPLE_RATE), pose=DrawnPose(sitter.pose) if with_pose else None)
    return Stream(
        model=model,
        decoder=VideoDecoder(vae),
        anchor=Anchor(encode_clip(vae, portrait)),
        driving=driving,
        settings=settings or model.card.rollout,
        seed=seed,
        seconds=len(sitter.frames) / FPS,
    )


@torch.no_grad()
def through_codec(frames: Tensor, vae: WanVAE) -> Iterator[Tensor]:
    """Frames [f, h, w, 3] through the autoencoder and back, in blocks: the best that any generator on it could do."""
    encoder, decoder, done = EncoderState(), DecoderState(), 0
    starts = [0, *range(1 + BLOCK - BLOCK % 4, len(frames), BLOCK - BLOCK % 4)]
    for start, stop in zip(starts, [*starts[1:], len(frames)], strict=True):
        latents = encode_frames(vae, frames[start:stop].permute(3, 0, 1, 2)[None].to(vae.conv1.weight.device), encoder)
        span = LatentSpan(done, done + latents.shape[2])
        done = span.stop
        yield VideoDecoder(vae).decode(LatentChunk(0, span, latents), decoder).frames.cpu()


def measured(sitter: Sitter, made: Tensor, codec: Tensor, reader: PortraitReader, chunk: int) -> Report:
    """`codec`: the sitter's frames through the autoencoder, [f, h, w, 3]."""
    return evaluate(
        made,
        fps=FPS,
        chunk=chunk,
        truth=sitter.frames[: len(made)],
        codec=codec[: len(made)],
        portrait=sitter.frames[0],
        opening=sitter.opening[: len(made)],
        mouth_boxes=sitter.mouth_boxes[: len(made)],
        reader=reader,
    )


def measure(
    model: Generator,
    vae: WanVAE,
    library: Library,
    folder: Path,
    *,
    sitters: int = 8,
    seconds: float = 20,
    long_seconds: float = 60,
    first_seed: int = 1000,
) -> dict:
    """Run the whole protocol and leave `measures.json`, contact sheets and moving frames in `folder`; returns what the JSON holds.

    Three conditions for every sitter: the codec alone, the stream with pose, the stream with sound only; and one long stream with pose."""
    folder.mkdir(parents=True, exist_ok=True)
    reader, chunk, size = load_reader().to(model.device), model.card.rollout.chunk, model.card.width
    results: dict[str, list[dict]] = {"codec": [], "pose and sound": [], "sound only": [], "long": []}
    rows: dict[str, Tensor] = {}
    jobs = [(first_seed + i, seconds, ("codec", "pose and sound", "sound only")) for i in range(sitters)]
    jobs.append((first_seed + sitters, long_seconds, ("long",)))
    with tqdm(total=sum(len(conditions) for _, _, conditions in jobs), unit="clip", desc="measuring") as bar:
        for seed, length, conditions in jobs:
            sitter = sit(seed, length, size, library)
            codec = torch.cat(list(through_codec(sitter.frames, vae)))
            if len(rows) < 3 * 8 and "codec" in conditions:
                rows[f"{seed} truth"] = sitter.frames
            for condition in conditions:
                if condition == "codec":
                    made = codec
                else:
                    stream = stream_of(sitter, model, vae, with_pose=condition != "sound only", seed=seed)
                    made = torch.cat([chunk.frames.cpu() for chunk in stream])
                report = measured(sitter, made, codec, reader, chunk)
                results[condition].append({"seed": seed, **{name: value for name, value, _ in report.rows}})
                if condition == "long":
                    contact_sheet({"truth": sitter.frames, "made": made}, fps=FPS, columns=12).save(folder / "long.png")
                elif condition != "codec":
                    rows[f"{seed} {condition}"] = made
                    save_animation(made[: SHOWN_SECONDS * FPS], folder / f"{seed} {condition}.webp")
                bar.update()
    contact_sheet(rows, fps=FPS, columns=10, side=96).quantize(256).save(folder / "sitters.png", optimize=True)  # a quarter of the bytes
    summary = {
        "conditions": {name: {"mean": means(values), "each": values} for name, values in results.items() if values},
        "seconds": seconds,
        "long_seconds": long_seconds,
        "size": size,
        "about": {"code": commit(), "date": str(date.today()), "machine": computed_on(model.dtype, model.device)},
    }
    (folder / "measures.json").write_text(json.dumps(summary, indent=1))
    return summary


def save_animation(frames: Tensor, path: Path) -> None:
    """Frames [f, h, w, 3] RGB 0..1 as an animated WebP that browsers and GitHub show."""
    images = [Image.fromarray((frame * 255).round().byte().numpy()) for frame in frames]
    images = [image.resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS) for image in images]
    images[0].save(path, save_all=True, append_images=images[1:], duration=round(1000 / FPS), loop=0, quality=60, method=6)


def means(results: list[dict]) -> dict[str, float]:
    names = [name for name in results[0] if name != "seed" and all(name in result for result in results)]
    return {name: fmean(result[name] for result in results) for name in names}
