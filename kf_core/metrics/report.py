"""All measures of a video in one pass, as one value: a table for people, JSON for machines.

What cannot be known stays `None`: without a truth there is no PSNR, without a track or sound no lip sync, without a portrait no identity.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .drift import Drift, DriftResult
from .flicker import Flicker, FlickerResult
from .frames import Measure, Video, feed
from .identity import Identity, IdentityResult
from .lip_sync import CONTROL_SECONDS, LipSync, LipSyncResult
from .psnr import Psnr, PsnrResult
from .reader import OneReading, PortraitReader
from .seams import SeamResult, Seams, seams
from .sharpness import Sharpness, SharpnessResult


@dataclass(frozen=True, kw_only=True)
class Report:
    frames: int
    fps: float
    flicker: FlickerResult
    seams: SeamResult
    seams_of_codec: SeamResult | None = None  # of the true clip that went through the VAE
    drift: DriftResult
    sharpness: SharpnessResult
    lip_sync: LipSyncResult | None = None
    identity: IdentityResult | None = None
    psnr: PsnrResult | None = None

    @property
    def rows(self) -> list[tuple[str, float | None, str]]:
        """(what, value, how to read it), only what is known."""
        relative = None if self.seams_of_codec is None else self.seams.relative_to(self.seams_of_codec)
        rows: list[tuple[str, float | None, str]] = [
            ("temporal flickering", self.flicker.score, "0..100, 100 is a still; read with motion"),
            ("motion", self.flicker.motion, "mean difference half a second apart, 0..255"),
            ("seam ratio", self.seams.ratio, "chunk against other latent boundaries, 1 is unseen"),
            ("seam ratio over the codec's", relative, "1 is as good as the true clip through the VAE"),
            ("colour drift per minute", self.drift.per_minute, "RGB 0..1"),
            ("colour, last fifth from first", self.drift.last_fifth, "RGB 0..1"),
            ("colour, last fifth from truth", self.drift.from_truth, "RGB 0..1"),
            ("gradient", self.sharpness.gradient, "more is sharper"),
            ("sharpness against truth", self.sharpness.ratio, "1 is as sharp"),
            ("curvature against truth", self.sharpness.curvature_ratio, "below 1 soft, above 1 noisy"),
        ]
        if self.lip_sync is not None:
            rows += [
                ("mouth r", self.lip_sync.r, "-1..1"),
                (f"mouth r, shifted {CONTROL_SECONDS} s", self.lip_sync.shifted, "control: should be near 0"),
                ("mouth late by", self.lip_sync.best_lag, "seconds"),
            ]
        if self.identity is not None:
            rows += [
                ("identity cosine", self.identity.cosine, "to the portrait, -1..1"),
                ("identity cosine, lowest", self.identity.lowest, ""),
                ("identity cosine, last fifth", self.identity.last_fifth, ""),
                ("palette error", self.identity.palette, "RGB 0..1, against the portrait"),
            ]
        if self.psnr is not None:
            rows += [
                ("PSNR", self.psnr.whole, "dB"),
                ("PSNR of the mouth", self.psnr.mouth, "dB"),
                ("PSNR, first fifth", self.psnr.first_fifth, "dB"),
                ("PSNR, last fifth", self.psnr.last_fifth, "dB"),
                ("worst latent frame below median", self.psnr.worst_below_median, "dB"),
            ]
        return [row for row in rows if row[1] is not None]

    def to_markdown(self) -> str:
        lines = [
            f"{self.frames} frames, {self.frames / self.fps:.1f} s at {self.fps:g} fps",
            "",
            "| measure | value | |",
            "|---|---:|---|",
        ]
        return "\n".join(lines + [f"| {what} | {value:.4g} | {how} |" for what, value, how in self.rows]) + "\n"

    def to_json(self) -> str:
        """Everything, with the seam ratios spelled out; what is not finite becomes null, as JSON has no infinity."""
        data = dataclasses.asdict(self)
        data["seams"]["ratio"] = self.seams.ratio
        data["seams"]["relative_to_codec"] = None if self.seams_of_codec is None else self.seams.relative_to(self.seams_of_codec)
        return json.dumps(_finite(data), indent=2)


def evaluate(
    video: Video,
    *,
    fps: float,
    chunk: int = 3,
    first_chunk: int | None = None,
    truth: Video | None = None,
    codec: Video | None = None,  # the truth, through the VAE and back
    portrait: Tensor | None = None,  # [h, w, 3]
    opening: Tensor | None = None,  # [f] how far the mouth should be open
    mouth_boxes: Tensor | None = None,  # [f, 4] pixels, with a truth
    reader: PortraitReader | None = None,
) -> Report:
    """Measure whatever can be known of a video, in one pass over it. Portrait and opening need a reader."""
    examination = Examination(
        fps=fps,
        chunk=chunk,
        first_chunk=first_chunk,
        portrait=portrait,
        opening=opening,
        mouth_boxes=mouth_boxes,
        reader=reader,
        has_truth=truth is not None,
    )
    feed([examination], video, truth)
    return examination.result(None if codec is None else seams(codec, chunk, first_chunk))


class Examination:
    """All measures of one video while it comes: frames are not kept. What each word means is said at `evaluate`."""

    def __init__(
        self,
        *,
        fps: float,
        chunk: int = 3,
        first_chunk: int | None = None,
        portrait: Tensor | None = None,
        opening: Tensor | None = None,
        mouth_boxes: Tensor | None = None,
        reader: "PortraitReader | OneReading | None" = None,
        has_truth: bool = False,
    ) -> None:
        if reader is None and (portrait is not None or opening is not None):
            raise ValueError("a portrait or a mouth track can only be compared by a reader")
        reader = OneReading(reader) if isinstance(reader, PortraitReader) else reader
        self._fps, self._frames = fps, 0
        self._measures: dict[str, Measure] = {
            "flicker": Flicker(fps), "seams": Seams(chunk, first_chunk), "drift": Drift(fps), "sharpness": Sharpness(),
        }  # fmt: skip
        if opening is not None:
            self._measures["lip_sync"] = LipSync(reader, opening, fps)
        if portrait is not None:
            self._measures["identity"] = Identity(reader, portrait)
        if has_truth:
            self._measures["psnr"] = Psnr(mouth_boxes)

    def add(self, frames: Tensor, truth: Tensor | None = None) -> None:
        self._frames += len(frames)
        for measure in self._measures.values():
            measure.add(frames, truth)

    def result(self, seams_of_codec: SeamResult | None = None) -> Report:
        if not self._frames:
            raise ValueError("there is no frame to measure")
        results = {name: measure.result() for name, measure in self._measures.items()}
        return Report(frames=self._frames, fps=self._fps, seams_of_codec=seams_of_codec, **results)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
