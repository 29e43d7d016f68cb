"""Streaming Decode: the stream is denoised, shown, and written to a video file, all at once.

What was made before, by another node or by a run that was cancelled, is read and not made again.
"""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from comfy_api.latest import InputImpl, io, ui

from ..kf_core.content_id import fingerprint
from ..kf_core.errors import KnotForcingError
from ..kf_core.session.executor import Executor
from ..kf_core.session.latent_log import LatentLog
from ..kf_core.session.sinks.video_file import VideoFile, film_name
from ..kf_core.session.stream import Stream
from ..kf_core.timeline import PixelSpan
from ..kf_core.types import FrameChunk, LatentChunk, Replayed, Step, gather
from .host import folders, preview
from .host.running import in_memory
from .loaders import CATEGORY
from .tuning import tuned
from .wires import Recipe, StreamWire

BYTES_PER_GIB = 2**30


class StreamingDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingDecode",
            display_name="Streaming Decode",
            category=CATEGORY,
            description="Makes the video and shows it while it is made. The file grows in the output folder and plays at any moment; "
            "cancel, and the next run goes on from there.",
            search_aliases=["video", "save video", "preview", "vae decode", "talking head"],
            inputs=[
                StreamWire.Input("stream", tooltip="What to make, from Knot Forcing Sampler."),
                io.Vae.Input("vae", tooltip="The VAE from Load KF Model, any Wan 2.1 VAE, or a tiny decoder (taew2_1, lighttaew2_1)."),
                io.String.Input(
                    "filename_prefix",
                    default="knot_forcing/video",
                    tooltip="Folder and name in ComfyUI's output folder; a short code for the stream is added.",
                ),
                io.Boolean.Input(
                    "keep_frames",
                    default=False,
                    tooltip="Also hand out the frames as IMAGE. They fill the memory: a minute at 832x480 takes 4.6 GB.",
                ),
                io.Int.Input(
                    "max_frames",
                    default=480,
                    min=1,
                    max=100000,
                    advanced=True,
                    tooltip="With keep_frames: how many frames at most. A longer stream is refused; use Next Segment for it.",
                ),
            ],
            outputs=[
                io.Video.Output(tooltip="The finished file with its sound."),
                io.Image.Output(tooltip="All frames, where keep_frames is on."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, stream: Recipe, vae, filename_prefix: str, keep_frames: bool, max_frames: int) -> io.NodeOutput:
        how = tuned(stream, vae)
        preview.set_status(cls.hidden.unique_id, how.said)
        with in_memory(stream, how.vae, how.decode_plan) as running, folders.kept_streams().use(running.recipe()) as folder:
            if keep_frames:
                refuse_too_many(running.num_frames, max_frames, running.anchor.latent.shape)
            film, subfolder = film_of(running, filename_prefix, partial(how.worker, running), folder)
            if not film.is_whole():
                folders.refuse_read(film.path, cls.hidden.prompt)
            frames = make(film, cls.hidden.unique_id, keep_frames, how.said)
        if not keep_frames:
            frames = preview.blocked("Streaming Decode gave no frames, because `keep_frames` is off. Switch it on, or use its VIDEO.")
        shown = ui.PreviewVideo([ui.SavedResult(film.path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(film.path)), frames, ui=shown)


def film_of(running: Stream, prefix: str, worker: Callable[[], Executor], folder: Path) -> tuple[VideoFile, str]:
    """The file that a stream belongs in, and its subfolder. `worker`: who makes its frames; `folder`: where streams are kept."""
    recipe = running.recipe()
    height, width = (8 * size for size in running.anchor.latent.shape[-2:])
    path, subfolder = folders.output_file(prefix, film_name(running, recipe), width, height)
    state_file = folder / f"{recipe}-{fingerprint(str(path))[:8]}.state"
    return VideoFile(stream=running, path=path, state_file=state_file, spool=LatentLog(folder, recipe), worker=worker), subfolder


def make(film: VideoFile, node_id: str, keep_frames: bool, said: str = "") -> torch.Tensor | None:
    """Record the film, showing it; the frames [f, h, w, 3] if they are to be kept. Ends at once when the user cancels.

    `said`: how its frames are made."""
    stream, kept, there = film.stream, None, film.frames
    lost = film.remark()
    remarks = " ".join(filter(None, (said, lost, *stream.remarks())))
    if film.is_whole() and not keep_frames:
        film.finish()
        preview.set_status(node_id, f"{there / stream.fps:.1f} s were there already: {film.path}. {remarks}".rstrip())
        return None
    preview.set_status(node_id, lost)
    try:
        with preview.Preview(node_id, stream.num_frames, there, stream.fps) as show, closing(film.record(keep_frames)) as happening:
            for item in happening:
                if isinstance(item, Step):
                    show.step(item)
                elif isinstance(item, Replayed):
                    preview.set_status(node_id, f"Taking up what was denoised before: {item.index + 1} of {item.total} chunks. {lost}")
                elif isinstance(item, FrameChunk):
                    show.show(item)
                    if keep_frames:
                        kept = gather(kept, item, PixelSpan(0, stream.num_frames))
                if not isinstance(item, LatentChunk):
                    preview.stop_if_cancelled()
    finally:
        if not film.is_whole():
            preview.set_status(node_id, _stopped(film))
    show.clear()
    preview.set_status(node_id, f"{film.frames / stream.fps:.1f} s in {film.path}, {show.speed:.1f} FPS. {remarks}".rstrip())
    return kept


def _stopped(film: VideoFile) -> str:
    """What a run that was cancelled leaves."""
    if not film.frames:
        return "Stopped before there was an image. Queue again to go on."
    return f"Stopped. {film.frames / film.stream.fps:.1f} s are in {film.path} and can be played. Queue again to go on."


def refuse_too_many(frames: int, most: int, latent_shape: torch.Size) -> None:
    """Raises KnotForcingError when so many frames should not be held in memory."""
    if frames <= most:
        return
    size = frames * latent_shape[-1] * latent_shape[-2] * 64 * 3 * 4 / BYTES_PER_GIB
    raise KnotForcingError(
        f"The stream has {frames} frames, which would take {size:.1f} GiB of memory, and `max_frames` is {most}. "
        f"Switch `keep_frames` off and use the VIDEO, take the frames piece by piece with Next Segment, or raise `max_frames`."
    )


NODES = [StreamingDecode]
