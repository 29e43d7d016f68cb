"""`animate`: portrait and voice become a video that is on the disk while it is made.

The loop is the whole command: pictures go to the writer, the state to a file beside the video every few seconds. Ctrl-C ends after the
step that is running; whatever ends it, the video plays, and `--resume` goes on from its last picture.
"""

import argparse
import shlex
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from ..chunks import FrameChunk, LatentChunk
from ..conditioning.anchor import Anchor
from ..conditioning.audio import AudioFile, AudioSource, Silence
from ..conditioning.driving import Driving
from ..conditioning.portrait import advice_on, livetalk_portrait, prepare_portrait
from ..conditioning.pose import PoseVideo
from ..errors import KnotForcingError
from ..evaluation.speed import machine
from ..media.fragments import read_fragments
from ..media.picture import read_picture
from ..media.playback import probe
from ..media.soundtrack import Soundtrack
from ..media.video import Provenance, VideoWriter
from ..settings import RolloutSettings
from ..spool import Spool
from ..stream import Stream, StreamState
from ..timeline import latent_frames, pixel_frames_in
from ..vae.streaming import VideoDecoder, encode_clip
from . import model as model_arguments

SAMPLE_RATE, CHANNELS = 48_000, 2
SAVE_SECONDS = 3.0  # at least, between two savings of the state ...
SAVE_SHARE = 20  # ... and at least so many times what saving takes
STOPPED = 130

EXAMPLES = """examples
  A portrait that speaks as long as the recording lasts:
    python -m kf_core animate --portrait me.png --audio voice.mp3 --out talk.mp4
  It stopped, or the power went: go on where the file ends
    python -m kf_core animate --portrait me.png --audio voice.mp3 --out talk.mp4 --resume
  A minute, smiling from second 10 to 20, a little livelier than usual:
    python -m kf_core animate --portrait me.png --audio voice.mp3 --out talk.mp4 --duration 60 \\
        --script "[00:10-00:20] smile, nod" --motion-strength 1.3
The file can be watched while it grows. Ctrl-C finishes it and says how to go on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    files = parser.add_argument_group("what goes in, what comes out")
    files.add_argument("--portrait", type=Path, required=True, metavar="FILE", help="picture of the person: PNG, JPEG, WebP, ...")
    files.add_argument("--audio", type=Path, metavar="FILE", help="voice: WAV, MP3, M4A, FLAC, OGG, or a video with sound")
    files.add_argument("--out", type=Path, required=True, metavar="FILE", help="the video to make, an .mp4")
    files.add_argument("--resume", action="store_true", help="go on with a video that was begun; every other word as before")
    files.add_argument("--overwrite", action="store_true", help="replace the video if it is there already")
    group = parser.add_argument_group("how it moves")
    group.add_argument("--duration", type=float, metavar="SECONDS", help="length (default: the voice's); beyond the voice it is silent")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="another number, another performance (default: 0)")
    group.add_argument("--script", default="", metavar="TEXT", help='what happens when, or a file of it: "[00:10-00:20] smile, nod"')
    group.add_argument("--prompt", default="", metavar="TEXT", help="what holds for the whole video")
    group.add_argument("--motion-strength", type=float, metavar="0..2", help="0 still, 1 usual, 2 lively (default: the model's choice)")
    group.add_argument("--pose", type=Path, metavar="VIDEO", help="head movement from a video of OpenPose faces")
    for name, what in (("audio", "the voice moves the mouth"), ("pose", "the pose is followed"), ("expression", "the script's looks show")):
        group.add_argument(f"--{name}-strength", type=float, default=1.0, metavar="0..2", help=f"how much {what} (default: 1)")
    model_arguments.add_arguments(parser)
    other = parser.add_argument_group("other")
    other.add_argument("--spool", type=Path, metavar="FOLDER", help="keep the latents here; the same recipe is then read, not computed")
    other.add_argument("--quiet", action="store_true", help="no progress bar and no summary")


def run(chosen: argparse.Namespace) -> int:
    began = time.perf_counter()
    _check_output(chosen)
    audio, seconds = _sound(chosen)
    picture = read_picture(chosen.portrait)
    driving = _driving(chosen, audio)
    loaded = model_arguments.load_model(chosen)
    stream = Stream(
        model=loaded.generator,
        decoder=VideoDecoder(loaded.vae),
        anchor=_anchor(picture, loaded),
        driving=driving,
        settings=_settings(loaded, seconds),
        seed=chosen.seed,
        seconds=seconds,
        audio_encoder=loaded.audio_encoder,
    )
    card = loaded.generator.card
    for note in (card.note, getattr(audio, "note", ""), *advice_on(picture, loaded.width, loaded.height), *stream.remarks()):
        if note:
            print(f"Note: {note}", file=sys.stderr)
    job = _Job(chosen, stream, stream.recipe(), audio)
    with _writer(job, loaded) as video, _stop_on_request() as stop:
        made = _make(job, video, stop, began)
    if not made.is_whole:
        print(
            f"Stopped. {video.seconds:.1f} s are in {chosen.out} and can be played. Continue with:\n  {_command(chosen, sys.argv)}",
            file=sys.stderr,
        )
        return STOPPED
    job.state_file.unlink(missing_ok=True)
    if not chosen.quiet:
        print(made.summary(chosen.out, loaded, video))
    return 0


@dataclass(frozen=True, eq=False)
class _Job:
    chosen: argparse.Namespace
    stream: Stream
    recipe: str
    audio: AudioSource

    @property
    def state_file(self) -> Path:
        return self.chosen.out.with_name(self.chosen.out.name + ".resume")


@dataclass
class _Made:
    """What came of it, for the summary."""

    is_whole: bool
    pictures: int  # made now, not counting those that were there
    loading: float  # seconds
    first_picture: float  # seconds, from the beginning of the command
    seconds: float  # from the first chunk to the last

    def summary(self, out: Path, loaded: model_arguments.LoadedModel, video: VideoWriter) -> str:
        lines = [f"file         {out}: {video.seconds:.2f} s, {video.num_pictures} pictures of {video.width}x{video.height}, with sound"]
        if self.pictures and self.seconds:
            speed = self.pictures / self.seconds
            lines.append(f"speed        {speed:.1f} FPS, {speed / float(video.fps):.2f} x real time at {float(video.fps):g} FPS")
            lines.append(f"first frame  on the disk after {self.first_picture:.2f} s, {self.loading:.2f} s of it loading")
        precision = str(loaded.generator.dtype).removeprefix("torch.")
        lines.append(f"precision    {precision} on {loaded.generator.device.type}: {machine()}")
        return "\n".join(lines)


def _make(job: _Job, video: VideoWriter, stop: list[bool], began: float) -> _Made:
    """The loop: pictures to the file, the state beside it."""
    stream, end = job.stream, job.stream.num_pictures
    there = video.num_pictures
    state = _state(job, video) if there < end else None
    soundtrack = Soundtrack(job.audio.blocks(SAMPLE_RATE, CHANNELS))
    spool = Spool(job.chosen.spool, job.recipe) if job.chosen.spool else None
    started = saved = time.perf_counter()
    first = cost = 0.0
    with _progress(job.chosen, stream, there) as bar:
        for item in stream.steps(state, spool) if state is not None else ():
            if isinstance(item, FrameChunk):
                fresh = item.frames[max(0, video.num_pictures - item.span.start) :]
                if len(fresh):
                    video.write(fresh, soundtrack.between(*video.sound_for(len(fresh))))
                    first = first or time.perf_counter() - began
                    speed = (video.num_pictures - there) / (time.perf_counter() - started)
                    bar.set_description_str(f"{video.seconds:.1f} of {end / stream.fps:.1f} s, {speed:.1f} FPS", refresh=False)
                    bar.update(len(fresh))
                if video.num_pictures < end and time.perf_counter() - saved > max(SAVE_SECONDS, SAVE_SHARE * cost):
                    cost = _save(job, state)
                    saved = time.perf_counter()
            if stop and not isinstance(item, LatentChunk):
                break
    is_whole = video.num_pictures >= end
    if not is_whole:
        _save(job, state)
    return _Made(is_whole, video.num_pictures - there, started - began, first, time.perf_counter() - started)


def _save(job: _Job, state: StreamState) -> float:
    """Save the state; returns what it took, in seconds."""
    before = time.perf_counter()
    state.save(job.state_file, job.stream)
    return time.perf_counter() - before


def _state(job: _Job, video: VideoWriter) -> StreamState:
    """Where to go on: the saved state if it is not beyond the video, else the beginning (what is there is made again, and not written)."""
    state = StreamState.load(job.state_file, job.stream) if job.chosen.resume else None
    if state is not None and 0 < state.next_picture <= video.num_pictures:
        return state
    if video.num_pictures:
        print(f"Note: no saved state fits, so the first {video.seconds:.1f} s are computed again; the file keeps them.", file=sys.stderr)
    return StreamState.start(job.stream)


def _writer(job: _Job, loaded: model_arguments.LoadedModel) -> VideoWriter:
    out, card = job.chosen.out, loaded.generator.card
    if job.chosen.resume and out.exists() and out.stat().st_size:
        with out.open("rb") as file:
            is_begun = read_fragments(file).pictures > 0
        if is_begun and job.recipe not in probe(out).metadata.get("comment", ""):
            raise KnotForcingError(
                f"{out} was begun with another portrait, voice, seed, model or setting, so it cannot be continued with these. "
                f"Give the same ones, or another name by --out."
            )
    return VideoWriter(
        out,
        width=loaded.width,
        height=loaded.height,
        fps=card.fps,
        sample_rate=SAMPLE_RATE,
        channels=CHANNELS,
        provenance=Provenance(model=card.name, seed=job.chosen.seed, recipe=job.recipe),
        resume=job.chosen.resume,
    )


def _check_output(chosen: argparse.Namespace) -> None:
    """Refuse what cannot come to a good end before a model is loaded."""
    if chosen.out.suffix.lower() != ".mp4":
        raise KnotForcingError(f"{chosen.out} is not an .mp4 name. Call the video, for example, {chosen.out.with_suffix('.mp4')}.")
    if not chosen.out.parent.is_dir():
        raise KnotForcingError(f"The folder {chosen.out.parent} does not exist. Make it, or choose another place for the video.")
    if chosen.out.exists() and not (chosen.resume or chosen.overwrite):
        raise KnotForcingError(
            f"{chosen.out} is there already. Add --resume to go on with it, --overwrite to replace it, or give another name by --out."
        )


def _sound(chosen: argparse.Namespace) -> tuple[AudioSource, float]:
    """The voice, and how long the video is."""
    if chosen.duration is not None and not 0 < chosen.duration < float("inf"):
        raise KnotForcingError(f"A video of {chosen.duration:g} s cannot be made. Give --duration in seconds, more than 0.")
    if chosen.audio is None and chosen.duration is None:
        raise KnotForcingError("How long should the video be? Give a voice by --audio, or a length in seconds by --duration.")
    audio = Silence(chosen.duration) if chosen.audio is None else AudioFile(chosen.audio)
    return audio, audio.seconds if chosen.duration is None else chosen.duration


def _driving(chosen: argparse.Namespace, audio: AudioSource) -> Driving:
    script = chosen.script
    if script and len(script) < 1000 and "\n" not in script and Path(script).is_file():
        script = Path(script).read_text(encoding="utf-8", errors="replace")
    return Driving(
        audio=audio,
        pose=None if chosen.pose is None else PoseVideo(chosen.pose),
        motion=chosen.motion_strength,
        prompt=chosen.prompt,
        script=script,
        audio_strength=chosen.audio_strength,
        pose_strength=chosen.pose_strength,
        expression_strength=chosen.expression_strength,
    )


def _settings(loaded: model_arguments.LoadedModel, seconds: float) -> RolloutSettings:
    """The model's own; one that remembers every frame gets memory for as many as there will be."""
    settings = loaded.settings
    if settings.window is not None:
        return settings
    frames = latent_frames(pixel_frames_in(seconds, loaded.generator.card.fps))
    return replace(settings, max_frames=settings.emitted(settings.chunk_of(frames - 1)).stop)


def _anchor(picture: torch.Tensor, loaded: model_arguments.LoadedModel) -> Anchor:
    generator = loaded.generator
    cut = livetalk_portrait if generator.card.picture == "portrait" else prepare_portrait
    return Anchor(encode_clip(loaded.vae, cut(picture, loaded.width, loaded.height).to(generator.device)))


def _progress(chosen: argparse.Namespace, stream: Stream, there: int) -> tqdm:
    form = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"
    return tqdm(total=stream.num_pictures, initial=there, bar_format=form, disable=chosen.quiet, mininterval=0.2)


@contextmanager
def _stop_on_request():
    """A list that is empty until Ctrl-C (or a termination) asks for the end; the second time it is asked, the end comes at once."""
    asked: list[bool] = []

    def ask(number, _):
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        print("\nFinishing the file ...", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _command(chosen: argparse.Namespace, argv: list[str]) -> str:
    words = [word for word in argv[1:] if word not in ("--resume", "--overwrite")]
    return shlex.join(["python", "-m", "kf_core", *words, "--resume"])
