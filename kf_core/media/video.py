"""MP4 written while it is made: each chunk of frames, with its sound, is one fragment on the disk.

Whatever happens to the process, the file plays up to its last whole fragment, and `resume=True` goes on from there.

    file  = header | fragment 0 | fragment 1 | ... | end of the sound | index, when it is closed (`finish.py`)
    frames: H.264, an encoder for each fragment, so that a fragment depends on nothing but its own frames
    sound:    AAC, one encoder for the file; a resumed file warms a new one up on the sound before the joint

Knows nothing of models or latents. Sources: ISO/IEC 14496-12; FFmpeg's mov muxer (`frag_discont` continues a file it did not begin).
"""

import io
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import torch
from torch import Tensor

from ..errors import KnotForcingError
from ..types import FrameChunk
from ..writing import why
from .finish import finish, unfinish
from .fragments import read_fragments, write_fragment
from .growing import GrowingFile
from .header import split
from .playback import format_of

# bf 0: frames are stored in the order they are shown. mbtree 0: for small frames x264's macroblock tree reads memory that it did not
# write, so equal frames did not always become equal bytes; and it looks ahead over seconds, of which a fragment has less than one.
QUALITY = {"preset": "fast", "crf": "18", "bf": "0", "mbtree": "0"}
AAC_BLOCK = 1024  # samples in one packet, and the length of its encoder's run-in
AAC_WARM_UP = 8 * AAC_BLOCK  # fed to a new encoder before a joint, so that it meets the old one's sound
AAC_BITS_PER_SECOND = 160_000
# FFmpeg's usual search (`twoloop`) now and then spoils a packet of clear tones by half their height, heard as a crackle; `fast` is "better
# and much faster at higher bitrates" (ffmpeg-codecs, aac_coder).
AAC_SEARCH = {"aac_coder": "fast"}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a video comes from, as it stands in the file's metadata."""

    model: str
    seed: int
    recipe: str = ""  # the stream's, by which a continued video is known again
    decoder: str = ""  # the name of what made the frames, likewise
    writer: str = ""  # who began the file, where another could take it for his own
    software: str = "Knot Forcing"

    def metadata(self) -> dict[str, str]:
        text = (
            f"AI-generated video. Made by {self.software} with the model {self.model}, seed {self.seed}. The person shown did not say this."
        )
        text += f" Recipe {self.recipe}." if self.recipe else ""
        text += f" Decoder {self.decoder}." if self.decoder else ""
        text += f" Begun by {self.writer}." if self.writer else ""
        return {"title": "AI-generated portrait animation", "comment": text, "description": text}


class VideoWriter:
    """Writes frames and sound to `path` as they come.

    Invariants
    - Each `write` is on the disk, whole, when it returns; a `write` that fails leaves the file as it was.
    - What lies at `path` stays there until the first fragment is whole. Nothing is put into a file that is not the one that was begun.
    - Sound is never ahead of or behind the frames by more than it takes to fill an AAC packet, and after `close` both are equally long.
    - A resumed file holds the frames of an uninterrupted one, each once.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        width: int,
        height: int,
        fps: float,
        sample_rate: int | None = None,  # None: a silent film, without a sound track
        channels: int = 1,
        provenance: Provenance | None = None,
        resume: bool = False,
    ) -> None:
        if width % 2 or height % 2:
            raise KnotForcingError(
                f"A video of {width}x{height} cannot be stored as H.264, which needs even sizes. "
                f"Ask for {width + width % 2}x{height + height % 2}."
            )
        self.path = Path(path)
        self.width, self.height, self.fps = width, height, Fraction(fps).limit_denominator(1001)
        self.sample_rate, self.channels, self.provenance = sample_rate, channels, provenance
        self.num_frames = 0
        self.is_finished = False  # after `close`: an ordinary MP4
        self._next_sample = 0
        self._sound_from = -AAC_BLOCK  # the first packet that is not yet in the file; the run-in comes before 0
        self._num_fragments = 0
        self._sound_stop = 0  # of a resumed file's, in samples on the track's clock
        self._has_heard = False  # the AAC encoder holds sound that is not in the file yet
        self._is_broken = False  # ... and that never will be
        self._is_closed = False
        self._length = 0
        self._growing = GrowingFile(path, resume=resume)
        try:
            if self._growing.is_begun:
                self._continue()
                self._growing.settle()
            self._aac = None if sample_rate is None else self._configured(av.CodecContext.create("aac", "w"))
        except BaseException:
            self._growing.close()
            raise

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def _file(self) -> BinaryIO | None:
        """None: not begun."""
        return self._growing.handle

    @property
    def seconds(self) -> float:
        """How long the video is so far."""
        return float(self.num_frames / self.fps)

    def sound_for(self, frames: int) -> tuple[int, int]:
        """The samples, as a half-open span from the start of the video, that the next `write` of that many frames takes.

        In a resumed file the first span reaches back a little, to meet the sound that is there."""
        if self.sample_rate is None:
            return 0, 0
        return self._next_sample, round((self.num_frames + frames) * self.sample_rate / self.fps)

    def sound_there(self) -> np.ndarray:
        """What a resumed file plays from the beginning of that span on, to be asked before the first `write`: [samples, channels].

        For those who have no sound from before their frames. It ends where the frames do; earlier where the file broke off."""
        heard = np.zeros((self.channels, 0), np.float32)
        start, end = self.sound_for(0)
        if self._file is None:
            return heard.T
        with self._growing.place.open("rb") as file:
            last = _last_sound(file, start - AAC_BLOCK)
        if last is None or start >= end:
            return heard.T
        with av.open(io.BytesIO(last)) as container:
            for frame in container.decode(audio=0):
                block, first = frame.to_ndarray(), frame.pts
                if heard.shape[1] or first <= start < first + frame.samples:
                    heard = np.concatenate((heard, block[:, max(0, start - first) :]), axis=1)
        return heard[:, : end - start].T

    def write(self, frames: FrameChunk | Tensor, sound: np.ndarray | None = None) -> None:
        """Put frames [f, h, w, 3] (0..1) and their sound [samples] or [samples, channels] (-1..1) at the end of the file.

        Sound is the span that `sound_for` names; what is missing at its end is silence. Raises KnotForcingError when the disk is full."""
        frames = frames.frames if isinstance(frames, FrameChunk) else frames
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (self.height, self.width, 3):
            raise ValueError(f"frames of [f, {self.height}, {self.width}, 3] were expected, got {list(frames.shape)}")
        if not len(frames):
            return
        if self._is_broken or self._is_closed:
            raise ValueError(f"{self.path} takes no more frames: it is closed, or a write to it has failed")
        start, stop = self.sound_for(len(frames))
        block = None if self._aac is None else self._fit(sound, stop - start)
        try:
            packets = [] if block is None else self._encode_sound(block, start)
            self._append(frames, packets)
        except BaseException:
            self._is_broken = True  # the encoder has heard sound that is not in the file
            raise
        self.num_frames += len(frames)
        self._next_sample = stop

    @property
    def lacks_sound(self) -> bool:
        """Whether a resumed file has less sound than frames: it broke off before the end of the sound was written."""
        return self.sample_rate is not None and self._sound_stop < AAC_BLOCK + self.sound_for(0)[1]

    def write_sound(self, sound: np.ndarray) -> None:
        """Put sound of the span that `sound_for(0)` names under the frames that are in the file; its last packets come with `close`."""
        start, stop = self.sound_for(0)
        if packets := self._encode_sound(self._fit(sound, stop - start), start):
            self._append(None, packets)
        self._next_sample = stop

    def close(self) -> None:
        """Write the end of the sound, make it an ordinary MP4, and close. What was written is whole in any case."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._aac is not None and not self._is_broken:
                rest = self._wanted(self._aac.encode(None)) if self._has_heard else []
                if rest:
                    self._append(None, rest)
            if self._growing.is_ours():
                with suppress(OSError):  # no room for the index: the film is whole and plays, as it did while it grew
                    self.is_finished = finish(self._file)
        finally:
            self._growing.close()

    # ---- file ----

    def _continue(self) -> None:
        """Take up the file where it is whole. The end of the sound, which comes again, goes with the first write."""
        found = read_fragments(self._file)
        if not found.is_fragmented:
            raise KnotForcingError(
                f"{self.path} was not begun here, or another program has rewritten it, so it cannot be continued. "
                f"Choose another name for the video."
            )
        with_frames = [index for index, fragment in enumerate(found.whole) if fragment.frames]
        if not with_frames:
            return
        if found.is_finished:
            self._check_same_kind()  # before it is touched
            unfinish(self._file, found)
        else:
            unfinish(self._file, found)  # players refuse a file that ends inside a `moof`, and a finished one that was cut off
            self._check_same_kind()
        kept = found.whole[: with_frames[-1] + 1]
        self._length = kept[-1].stop
        self._num_fragments, self.num_frames = len(kept), found.frames
        self._sound_stop = max((part.sound_time + AAC_BLOCK * part.sound_packets for part in found.whole), default=0)
        sounding = [fragment for fragment in kept if fragment.sound_packets]
        if sounding:
            self._sound_from = sounding[-1].sound_time + AAC_BLOCK * (sounding[-1].sound_packets - 1)
        self._next_sample = max(0, self._sound_from - AAC_WARM_UP)

    def _check_same_kind(self) -> None:
        there = format_of(self.path)
        found = (there.width, there.height, float(there.rate), there.sample_rate, there.channels)
        needed = (self.width, self.height, float(self.fps), self.sample_rate, self.channels if self.sample_rate else None)
        if found != needed:
            raise KnotForcingError(
                f"{self.path} cannot be continued: it is {_kind(*found)}, and what comes now is {_kind(*needed)}. "
                f"Use the settings that it was begun with, or another name."
            )

    def _append(self, frames: Tensor | None, sound: list[av.Packet]) -> None:
        header, fragment = self._fragment(frames, sound)
        try:
            if self._file is None:
                self._growing.begin(lambda file: write_fragment(file, 0, header, fragment))
            else:
                self._growing.refuse_changed(f"the {self.seconds:.1f} s made so far")
                self._add(header, fragment)
                self._growing.settle()
        except OSError as problem:
            raise self._unwritten(problem) from problem
        self._length += len(header) + len(fragment)
        self._num_fragments += 1

    def _add(self, header: bytes, fragment: bytes) -> None:
        try:
            self._file.truncate(self._length)
            write_fragment(self._file, self._length, header, fragment)
        except BaseException:
            with suppress(OSError):  # a drive that is gone; players skip what has no name yet
                self._file.truncate(self._length)
                self._growing.settle()
            raise

    def _unwritten(self, problem: OSError) -> KnotForcingError:
        """What is to be said where a fragment cannot be written."""
        found, remedy = why(problem, self.path)
        if not self.num_frames:
            there = " What was there before is as it was." if self._file is None and self._growing.before is not None else ""
            return KnotForcingError(f"The video {self.path} cannot be begun: {found}.{there} {remedy} and start again.")
        return KnotForcingError(
            f"{self.path} cannot be written any more: {found}. The {self.seconds:.1f} s made so far are kept in it and can be played. "
            f"{remedy} and continue with resume."
        )

    def _fragment(self, frames: Tensor | None, sound: list[av.Packet]) -> tuple[bytes, bytes]:
        """The file's header, where this is the first fragment, and the fragment."""
        is_first = self._num_fragments == 0
        flags = "frag_custom+delay_moov+default_base_moof+skip_trailer" + ("" if is_first else "+frag_discont")
        options = {"movflags": flags, "fragment_index": str(self._num_fragments + 1)}
        memory = io.BytesIO()
        with av.open(memory, "w", format="mp4", options=options) as container:
            if self.provenance is not None:
                container.metadata.update(self.provenance.metadata())
            frame_track = self._frame_track(container)
            sound_track = None if self._aac is None else self._sound_track(container)
            for packet in [] if frames is None else self._encode_frames(frame_track, frames):
                container.mux(packet)
            for packet in sound:
                packet.stream = sound_track
                if not is_first:  # the track's clock starts with the run-in; the muxer knows that only where it wrote the header
                    packet.pts += AAC_BLOCK
                    packet.dts += AAC_BLOCK
                container.mux(packet)
        header, fragment = split(memory.getvalue(), run_in=AAC_BLOCK)
        return header if is_first else b"", fragment

    # ---- frames ----

    def _frame_track(self, container):
        track = container.add_stream("libx264", rate=self.fps, options=QUALITY)
        track.width, track.height, track.pix_fmt = self.width, self.height, "yuv420p"
        track.codec_context.time_base = 1 / self.fps
        # BT.709, written down: otherwise players guess by size, and skin changes its colour
        for name in ("color_primaries", "color_trc", "colorspace"):
            setattr(track.codec_context, name, 1)
        track.codec_context.color_range = 1
        return track

    def _encode_frames(self, track, frames: Tensor) -> list[av.Packet]:
        packets = []
        for offset, image in enumerate(frames):  # one by one: all at once, a segment in float32 would be held three times more
            bytes_hwc = (image.detach().float().clamp(0, 1) * 255).round().to(device="cpu", dtype=torch.uint8).numpy()
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(bytes_hwc), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = self.num_frames + offset, 1 / self.fps
            packets += track.encode(frame)
        return packets + track.encode(None)

    # ---- sound ----

    def _sound_track(self, container):
        track = container.add_stream("aac", rate=self.sample_rate)  # its own encoder only describes the track
        self._configured(track.codec_context)
        return track

    def _configured(self, context):
        context.sample_rate, context.format, context.options = self.sample_rate, "fltp", AAC_SEARCH
        context.layout = "mono" if self.channels == 1 else "stereo"
        context.bit_rate = AAC_BITS_PER_SECOND
        context.time_base = Fraction(1, self.sample_rate)
        return context

    def _fit(self, sound: np.ndarray | None, samples: int) -> np.ndarray:
        """Sound as [channels, samples], with silence where it ends early."""
        if sound is None or not len(sound):
            return np.zeros((self.channels, samples), np.float32)
        sound = np.asarray(sound, np.float32)
        sound = sound[None] if sound.ndim == 1 else sound.T
        if len(sound) != self.channels or sound.shape[1] > samples:
            raise ValueError(f"sound of [at most {samples}, {self.channels}] was expected, got {list(sound.T.shape)}")
        return np.pad(sound, ((0, 0), (0, samples - sound.shape[1])))

    def _encode_sound(self, block: np.ndarray, start: int) -> list[av.Packet]:
        if not block.shape[1]:
            return []
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.clip(-1, 1)), format="fltp", layout=self._aac.layout.name)
        self._has_heard = True
        frame.sample_rate, frame.pts, frame.time_base = self.sample_rate, start, Fraction(1, self.sample_rate)
        return self._wanted(self._aac.encode(frame))

    def _wanted(self, packets: list[av.Packet]) -> list[av.Packet]:
        """Those that are not in the file yet; a warmed-up encoder repeats a few."""
        return [packet for packet in packets if packet.pts >= self._sound_from]


def _last_sound(file: BinaryIO, start: int) -> bytes | None:
    """A small file of a large one: its header, and its fragments from the last one on whose sound begins before sample `start`."""
    found = read_fragments(file)
    sounding = [fragment for fragment in found.whole if fragment.sound_packets]
    if not sounding:
        return None
    before = [fragment for fragment in sounding if fragment.sound_time - AAC_BLOCK < start]
    first = (before or sounding[:1])[-1].start
    file.seek(0)
    header = file.read(found.header_length)
    file.seek(first)
    return header + file.read(found.whole[-1].stop - first)


def _kind(width: int, height: int, fps: float, sample_rate: int | None, channels: int | None) -> str:
    sound = "without sound" if sample_rate is None else f"with {'mono' if channels == 1 else 'stereo'} sound of {sample_rate} Hz"
    return f"{width}x{height} at {fps:g} frames a second {sound}"
