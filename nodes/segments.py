"""Long video through other people's nodes: N seconds of frames for each queued run, joined again in one file.

Next Segment counts its index up by itself, so a queue of as many runs as there are segments carries an hour through an upscaler or a
face restorer with the memory of a few seconds. Stream to Latent hands out the latents instead, for a decoder of one's own.
"""

from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import InputImpl, io, ui

from ..kf_core.conditioning.audio import AudioArray
from ..kf_core.errors import KnotForcingError
from ..kf_core.media.fragments import num_frames
from ..kf_core.media.playback import metadata
from ..kf_core.media.video import Provenance, VideoWriter
from ..kf_core.memory import give_back
from ..kf_core.session.latent_log import LatentLog
from ..kf_core.session.sinks.segments import Segments, segment_with, sound_between
from ..kf_core.session.sinks.video_file import CHANNELS, SAMPLE_RATE, film_name
from ..kf_core.timeline import latent_frames
from ..kf_core.types import FrameChunk, LatentChunk, Step, gather
from ..kf_core.vae.wan import from_model_space
from .host import folders, preview
from .host.running import in_memory
from .loaders import CATEGORY
from .tuning import tuned
from .wires import Recipe, Segment, SegmentWire, StreamWire


class NextSegment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingNextSegment",
            display_name="Next Segment",
            category=CATEGORY,
            description="The next few seconds of a stream as frames and sound. Queue it as often as there are segments: "
            "`index` counts up by itself, and the memory stays that of one segment.",
            search_aliases=["chunk", "batch", "long video", "loop"],
            inputs=[
                StreamWire.Input("stream", tooltip="What to make, from Knot Forcing Sampler."),
                io.Vae.Input("vae", tooltip="The VAE from Load KF Model, or any Wan 2.1 VAE."),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=1000000,
                    control_after_generate=io.ControlAfterGenerate.increment,
                    tooltip="Which segment, counted from 0. It counts up after each run; set it to 0 to begin again.",
                ),
                io.Float.Input(
                    "seconds",
                    default=4.0,
                    min=0.25,
                    max=60.0,
                    step=0.25,
                    tooltip="Length of a segment in seconds. At 832x480 a second of frames takes 77 MB, an upscaler more.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames of this segment, each once over all segments."),
                io.Audio.Output(display_name="audio", tooltip="The sound of this segment, exactly as long as its frames."),
                SegmentWire.Output(display_name="segment", tooltip="To Append Segment: where in the stream these frames belong."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, stream: Recipe, vae, index: int, seconds: float) -> io.NodeOutput:
        how = tuned(stream, vae)
        preview.set_status(cls.hidden.unique_id, how.said)
        with in_memory(stream, how.vae, how.decode_plan) as running, folders.kept_streams().use(running.recipe()) as folder:
            recipe = running.recipe()
            spool = LatentLog(folder, recipe)
            pieces = Segments(stream=running, seconds=seconds, folder=folder, spool=spool, worker=partial(how.worker, running))
            span = pieces.span(index)
            frames = None
            with preview.Preview(cls.hidden.unique_id, span.stop, span.start, running.fps) as show, closing(pieces.take(index)) as events:
                for item in events:
                    if isinstance(item, Step):
                        show.step(item)
                    elif isinstance(item, FrameChunk):
                        show.show(item)
                        frames = gather(frames, item, span)
                    if not isinstance(item, LatentChunk):
                        preview.stop_if_cancelled()
            segment = Segment(
                stream=f"{film_name(running, recipe)}-{seconds:g}s",
                model=running.model.card.name,
                seed=running.seed,
                index=index,
                seconds=seconds,
                start=span.start,
                frames=span.length,
                of=running.num_frames,
                fps=running.fps,
                driver=stream.driver,
            )
            sound = torch.from_numpy(pieces.sound(index, SAMPLE_RATE, CHANNELS))[None]
        preview.set_status(cls.hidden.unique_id, f"Segment {index} of 0 .. {pieces.count - 1}, {show.speed:.1f} FPS. {how.said}".rstrip())
        return io.NodeOutput(frames, {"waveform": sound, "sample_rate": SAMPLE_RATE}, segment)


class AppendSegment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingAppendSegment",
            display_name="Append Segment",
            category=CATEGORY,
            description="Puts a segment at the end of one file with sound. The file plays at any moment; segment 0 begins it anew.",
            search_aliases=["join", "concatenate", "combine video", "save video"],
            inputs=[
                io.Image.Input("images", lazy=True, tooltip="The frames of the segment, as many as Next Segment gave, of any even size."),
                SegmentWire.Input("segment", tooltip="From Next Segment."),
                io.String.Input(
                    "filename_prefix",
                    default="knot_forcing/joined",
                    tooltip="Folder and name in ComfyUI's output folder; a short code for the stream is added. "
                    "Each Append Segment node needs its own.",
                ),
                io.Audio.Input(
                    "audio", optional=True, lazy=True, tooltip="Sound of the segment where it was worked on. None: the stream's own."
                ),
            ],
            outputs=[io.Video.Output(tooltip="The file as far as it goes.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def check_lazy_status(cls, segment: Segment, filename_prefix: str, **worked) -> list[str]:
        """Other nodes work on the segment only when it is known that it can be put in."""
        if not any(size in filename_prefix for size in ("%width%", "%height%")):  # then only the frames tell which file it is
            path, _ = folders.output_file(filename_prefix, segment.stream, 0, 0)
            _refuse_second(segment, path, cls.hidden.unique_id, cls.hidden.prompt)
            folders.refuse_read(path, cls.hidden.prompt)
            _frames_before(segment, path)
        return [name for name, value in worked.items() if value is None]

    @classmethod
    def execute(cls, images: torch.Tensor, segment: Segment, filename_prefix: str, audio: dict | None = None) -> io.NodeOutput:
        if len(images) != segment.frames:
            raise KnotForcingError(
                f"{len(images)} frames came, and segment {segment.index} has {segment.frames}. "
                f"Connect nodes that give a frame for each frame; change the frame rate after the video is joined."
            )
        height, width = images.shape[1:3]
        path, subfolder = folders.output_file(filename_prefix, segment.stream, width, height)
        _refuse_second(segment, path, cls.hidden.unique_id, cls.hidden.prompt)
        folders.refuse_read(path, cls.hidden.prompt)
        there = _frames_before(segment, path)
        missing = images[max(0, there - segment.start) :, ..., :3]
        if len(missing):
            with VideoWriter(
                path,
                width=width,
                height=height,
                fps=segment.fps,
                sample_rate=SAMPLE_RATE,
                channels=CHANNELS,
                provenance=Provenance(model=segment.model, seed=segment.seed, writer=f"node {cls.hidden.unique_id}"),
                resume=segment.index > 0,  # 0 replaces the file; Windows, which replaces none that is played, writes into it
            ) as video:
                start, stop = video.sound_for(len(missing))
                before = None if audio is None else video.sound_there()
                video.write(missing, _sound(segment, audio, start, stop, before).T)
        give_back()  # of what others made of the frames
        done = f"{_frames_in(path) / segment.fps:.1f} of {segment.of / segment.fps:.1f} s in {path}"
        preview.set_status(cls.hidden.unique_id, f"{done}. {_left_out(segment, len(images) - len(missing))}".removesuffix(". "))
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=shown)


class StreamToLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingToLatent",
            display_name="Stream to Latent",
            category=CATEGORY,
            description="The whole stream as one LATENT, not decoded: for VAE Decode (Tiled), for saving, for other samplers.",
            search_aliases=["latent", "samples"],
            inputs=[
                StreamWire.Input("stream", tooltip="What to make, from Knot Forcing Sampler."),
                io.Vae.Input("vae", tooltip="The VAE from Load KF Model, or any Wan 2.1 VAE."),
                io.Int.Input(
                    "max_latents",
                    default=241,
                    min=1,
                    max=100000,
                    tooltip="How many latent frames at most, four frames each. A longer stream is refused.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="In the VAE's own space, as every node of the host expects it.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, stream: Recipe, vae, max_latents: int) -> io.NodeOutput:
        with in_memory(stream, vae) as running, folders.kept_streams().use(running.recipe()) as folder:
            needed = latent_frames(running.num_frames)
            if needed > max_latents:
                raise KnotForcingError(
                    f"The stream has {needed} latent frames, and `max_latents` is {max_latents}. "
                    f"Shorten the stream, raise `max_latents`, or use Streaming Decode, which needs no memory for them."
                )
            latents = []
            with preview.Preview(cls.hidden.unique_id, running.num_frames, 0, running.fps) as show:
                for item in running.latents(LatentLog(folder, running.recipe())):
                    if isinstance(item, Step):
                        show.step(item)
                    elif isinstance(item, LatentChunk):
                        latents.append(item.latents.cpu())
                    preview.stop_if_cancelled()
        return io.NodeOutput({"samples": from_model_space(torch.cat(latents, dim=2)[:, :, :needed])})


def _refuse_second(segment: Segment, path: Path, node_id: str, prompt: dict) -> None:
    """Raises KnotForcingError where another Append Segment node of the workflow began the file: two would mix their frames in it.

    It may be begun anew by another than before if that one has gone, or has another prefix by now."""
    said = metadata(path).get("comment", "") if _frames_in(path) else ""
    nodes = {id: node["inputs"] for id, node in prompt.items() if node["class_type"] == "KnotForcingAppendSegment"}
    prefixes = {id: inputs.get("filename_prefix") for id, inputs in nodes.items()}
    for other in prefixes.keys() - {node_id}:
        if f" Begun by node {other}." in said and (segment.index > 0 or prefixes[other] == prefixes.get(node_id)):
            raise KnotForcingError(
                f"Another Append Segment node of this workflow (number {other}) writes {path.name}, and two cannot write into one file. "
                f"Choose another `filename_prefix` here, and set `index` of Next Segment to 0."
            )


def _frames_before(segment: Segment, path: Path) -> int:
    """How many frames the file has that the segment is to go on with. Raises KnotForcingError where one before it is missing."""
    there = 0 if segment.index == 0 else _frames_in(path)
    if segment.start > there:
        missing = segment_with(there, segment.seconds, segment.fps)
        raise KnotForcingError(
            f"Segment {segment.index} begins at frame {segment.start}, and {path.name} has {there}: a segment before it is missing. "
            f"Set `index` of Next Segment to {missing} and queue again from there{', or to 0 to begin again' if missing else ''}."
        )
    return there


def _left_out(segment: Segment, frames: int) -> str:
    """What is to be said of frames that the file had already."""
    if not frames:
        return ""
    return (
        f"{frames} frames of segment {segment.index} were in the file before and were not put in again: it keeps the old ones. "
        f"To replace them, set `index` of Next Segment to 0, which begins the file again."
    )


def _frames_in(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return num_frames(file)


def _sound(segment: Segment, audio: dict | None, start: int, stop: int, before: np.ndarray | None) -> np.ndarray:
    """Samples [start, stop) of the stream's sound, with what was worked on in its place: [channels, n].

    `before`: what the file plays from `start` on, which earlier segments were worked on, too: [n, channels]."""
    sound = sound_between(segment.driver.driving.audio, start, stop, SAMPLE_RATE, CHANNELS)
    if audio is not None:
        sound[:, : len(before)] = before.T
        worked = _resampled(audio, SAMPLE_RATE, CHANNELS)
        first = round(segment.start * SAMPLE_RATE / segment.fps)
        left, right = max(start, first), min(stop, first + worked.shape[1])
        sound[:, left - start : right - start] = worked[:, left - first : right - first]
    return sound


NODES = [NextSegment, AppendSegment, StreamToLatent]


def _resampled(audio: dict, sample_rate: int, channels: int) -> np.ndarray:
    """The host's AUDIO at another rate: [channels, n]."""
    source = AudioArray(audio["waveform"][0].float().cpu().numpy(), int(audio["sample_rate"]))
    return np.concatenate(list(source.blocks(sample_rate, channels))).T
