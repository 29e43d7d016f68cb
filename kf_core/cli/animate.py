"""`animate`: portrait and voice become a video that is on the disk while it is made.

How that is done is `film.py`; here words become a recipe, and its progress is shown. Ctrl-C ends after the step that is running;
whatever ends it, the video plays, and `--resume` goes on from its last frame. What that needs lies beside the video until it is whole:
`NAME.mp4.resume` and `NAME.mp4.resume.latents`.
"""

import argparse
import errno
import os
import signal
import sys
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ..conditioning.anchor import Anchor
from ..conditioning.audio import AudioFile, Silence
from ..conditioning.control import ControlVideo
from ..conditioning.driving import Driving
from ..conditioning.idle import NATURAL
from ..conditioning.portrait import advice_on, livetalk_portrait, prepare_portrait
from ..conditioning.pose import PoseVideo
from ..errors import KnotForcingError
from ..lock import lock_of, locked, log_of
from ..media.image import read_image
from ..metrics.speed import computed_on
from ..outputs import Files, refuse_inputs, refuse_place
from ..planning.presets import Plan
from ..sampling.guidance import negative_prompt, require_text_encoder
from ..session.latent_log import LatentLog, is_log
from ..session.sinks.video_file import VideoFile
from ..session.stream import Stream, is_state
from ..settings import RolloutSettings
from ..timeline import latent_frames, pixel_frames_in
from ..types import AudioSource, FrameChunk, LatentChunk, Replayed
from ..vae.streaming import encode_clip
from ..writing import beside, unwritable
from . import model as model_arguments
from .words import shell_line

STOPPED = 130
STRENGTHS = {"audio": "the voice moves the mouth", "pose": "the pose is followed", "expression": "the script's looks show"}
STRENGTHS |= {"control": "the control is followed"}

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
    files.add_argument("--portrait", type=Path, required=True, metavar="FILE", help="image of the person: PNG, JPEG, WebP, ...")
    files.add_argument("--audio", type=Path, metavar="FILE", help="voice: WAV, MP3, M4A, FLAC, OGG, or a video with sound")
    files.add_argument("--out", type=Path, required=True, metavar="FILE", help="the video to make, an .mp4")
    files.add_argument("--resume", action="store_true", help="go on with a video that was begun; every other word as before")
    files.add_argument("--overwrite", action="store_true", help="replace the video if it is there already")
    group = parser.add_argument_group("how it moves")
    group.add_argument("--duration", type=float, metavar="SECONDS", help="length (default: the voice's); beyond the voice it is silent")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="another number, another performance (default: 0)")
    group.add_argument("--script", default="", metavar="TEXT", help='what happens when, or a file of it: "[00:10-00:20] smile, nod"')
    group.add_argument("--prompt", default="", metavar="TEXT", help="what holds for the whole video")
    group.add_argument(
        "--negative-prompt",
        metavar="TEXT",
        help="what guidance leads away from, with --guidance above 1 (default: the model's own; of plain Wan its authors' Chinese one)",
    )
    group.add_argument("--motion-strength", type=float, metavar="0..2", help="0 still, 1 usual, 2 lively (default: the model's choice)")
    group.add_argument("--pose", type=Path, metavar="VIDEO", help="head movement from a video of OpenPose faces")
    group.add_argument("--control", type=Path, metavar="VIDEO", help="pose, depth or other control frames, with --control-module")
    group.add_argument(
        "--control-in-clean-pass", action="store_true", help="let what is remembered hear the control, too (default: it does not)"
    )
    group.add_argument(
        "--idle",
        type=float,
        metavar="0..1",
        help="how much a face blinks, glances and sways by itself where no --pose is given (default: 1 for models that obey lids, else 0)",
    )
    for name, what in STRENGTHS.items():
        group.add_argument(f"--{name}-strength", type=float, default=1.0, metavar="0..2", help=f"how much {what} (default: 1)")
    model_arguments.add_arguments(parser)
    other = parser.add_argument_group("other")
    other.add_argument(
        "--spool",
        type=Path,
        metavar="FOLDER",
        help="keep the latents here (2 MB a second at 832x480); the same recipe is then read, not computed",
    )
    other.add_argument("--quiet", action="store_true", help="no progress bar and no summary")


def run(chosen: argparse.Namespace) -> int:
    began = time.perf_counter()
    _check_output(chosen)
    audio, seconds = _sound(chosen)
    image = read_image(chosen.portrait)
    driving = _driving(chosen, audio)
    opened = model_arguments.open_model(chosen)
    if chosen.idle is None and "blink" in opened.card.expression:
        driving = replace(driving, idle=NATURAL)
    settings = model_arguments.settings_for(chosen, opened.card)
    require_text_encoder(opened.card, settings, has_text_encoder=chosen.text_encoder is not None)
    against = negative_prompt(opened.card, driving, settings)
    prompts = [*(line.words for line in driving.words.prompts()), *([] if against is None else [against])]
    text_encoder = model_arguments.read_prompts(chosen, prompts)
    loaded = model_arguments.load_model(chosen, opened)
    stream = Stream(
        model=loaded.generator,
        decoder=loaded.decoder,
        anchor=_anchor(image, loaded),
        driving=driving,
        settings=_settings(loaded, seconds),
        seed=chosen.seed,
        seconds=seconds,
        audio_encoder=loaded.audio_encoder,
        text_encoder=text_encoder,
        control_encoder=loaded.vae,
    )
    notes = (model_arguments.remark_on_device(chosen), *loaded.remarks)
    notes += (*advice_on(image, loaded.width, loaded.height), *stream.remarks())
    for note in filter(None, notes):
        print(f"Note: {note}", file=sys.stderr)
    film = _film(chosen, stream, loaded.tuning)
    if chosen.resume and (lost := film.remark()):
        print(f"Note: {lost}", file=sys.stderr)
    took = _record(film, began, chosen.quiet)
    if took.there + took.frames < stream.num_frames and not film.is_whole():
        print(_stopped(film, took), file=sys.stderr)
        return STOPPED
    if not chosen.quiet:
        print(_summary(film, loaded, took))
    return 0


def _stopped(film: VideoFile, took: "_Took") -> str:
    if not took.frames and not os.path.lexists(film.path):
        return f"Stopped before there was an image. {film.path} was not begun."
    if film.replaces and not took.frames:
        return f"Stopped before the new video was begun. What was at {film.path} is as it was."
    return f"Stopped. {film.frames / film.stream.fps:.1f} s are in {film.path} and can be played. Continue with:\n  {_command(sys.argv)}"


@dataclass(frozen=True, kw_only=True)
class _Took:
    """Seconds since the command was given, and what came of them."""

    loading: float
    first_frame: float = 0.0
    last_frame: float = 0.0
    there: int = 0  # frames in the file before
    frames: int = 0  # made now


def _record(film: VideoFile, began: float, is_quiet: bool) -> _Took:
    """The loop: frames go to the file until it is whole, or until someone asks for the end."""
    there, fps = 0 if film.replaces else film.frames, film.stream.fps
    total = film.stream.num_frames
    took = _Took(loading=time.perf_counter() - began, there=there)
    if there >= total:
        with suppress(OSError):  # somebody may be moving it just now
            film.finish()
        return took
    form = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"
    with (
        tqdm(total=total, initial=there, bar_format=form, disable=is_quiet, mininterval=0.2) as bar,
        _stop_on_request() as stop,
        closing(film.record()) as happening,
    ):
        for item in happening:
            if isinstance(item, FrameChunk) and item.span.stop > there:
                now, made = time.perf_counter() - began, item.span.stop - there
                took = replace(took, first_frame=took.first_frame or now, last_frame=now, frames=made)
                bar.set_description_str(f"{item.span.stop / fps:.1f} of {total / fps:.1f} s, {_speed(took):.1f} FPS", refresh=False)
                bar.update(there + made - bar.n if not is_quiet else 0)
            elif isinstance(item, Replayed):
                bar.set_description_str(f"taking up what was denoised: {item.index + 1} of {item.total} chunks")
            if stop and not isinstance(item, LatentChunk):
                break
    return took


def _speed(took: _Took) -> float:
    return took.frames / (took.last_frame - took.loading) if took.frames else 0.0


def _summary(film: VideoFile, loaded: model_arguments.LoadedModel, took: _Took) -> str:
    frames, fps = max(film.stream.num_frames, took.there + took.frames), film.stream.fps
    lines = [f"file         {film.path}: {frames / fps:.2f} s, {frames} frames of {loaded.width}x{loaded.height}, with sound"]
    if not took.frames:
        lines.append("denoised     nothing: the video was whole already")
    else:
        share = _speed(took) / fps
        lines.append(f"speed        {_speed(took):.1f} FPS, {share:.2f} x real time at {fps:g} FPS")
        if share < 1 and loaded.has_faster_decoder():
            lines.append("faster       --decoder small: a decoder of half the width makes the frames, softer ones")
        lines.append(f"first frame  on the disk after {took.first_frame:.2f} s, {took.loading:.2f} s of it loading")
    lines.append(f"precision    {computed_on(loaded.generator.dtype, loaded.generator.device)}")
    return "\n".join(lines)


def _film(chosen: argparse.Namespace, stream: Stream, tuning: Plan) -> VideoFile:
    spool = None if chosen.spool is None else LatentLog(chosen.spool, stream.recipe())
    if spool is not None and not len(spool):  # what is there already can be read from a disk that cannot be written
        _make_folder(chosen.spool)
        refuse_place(spool.path, "--spool")
    film = VideoFile(
        stream=stream,
        path=chosen.out,
        state_file=_state_file(chosen.out),
        spool=spool,
        worker=partial(model_arguments.worker, chosen, stream, tuning),
        replaces=not chosen.resume,
    )
    if chosen.resume and film.is_other():
        raise KnotForcingError(
            f"{chosen.out} was begun with another portrait, voice, seed, model, decoder or setting, so it cannot be continued with these. "
            f"Give the same ones, or another name by --out."
        )
    return film


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise unwritable(folder, problem) from problem


def _state_file(out: Path) -> Path:
    """Beside the video itself, also where `out` is a link to it."""
    return beside(Path(os.path.realpath(out)), ".resume")


def _check_output(chosen: argparse.Namespace) -> None:
    """Refuse what cannot come to a good end, before a model is loaded and anything is touched."""
    out = chosen.out
    if out.suffix.lower() != ".mp4":
        raise KnotForcingError(
            f"{out} is not an .mp4 name. Call the video, for example, {out.with_suffix('.mp4') if out.name else 'talk.mp4'}."
        )
    if not os.path.isdir(out.parent):
        raise unwritable(out, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
    state = _state_file(out)
    refuse_inputs({"--out": out} | {f"{file.name} beside --out": file for file in (state, lock_of(state), log_of(state))}, _inputs(chosen))
    if os.path.lexists(out) and not (chosen.resume or chosen.overwrite):
        raise KnotForcingError(
            f"{out} is there already. Add --resume to go on with it, --overwrite to replace it, or give another name by --out."
        )
    refuse_place(out, "--out", is_film=True)
    for file, is_ours in ((state, is_state(state)), (log_of(state), is_log(log_of(state)))):
        if not is_ours:
            raise KnotForcingError(
                f"{file} is needed to continue the video, and another file has that name. Move it away, or give another name by --out."
            )
    if chosen.spool is not None and os.path.lexists(chosen.spool) and not chosen.spool.is_dir():
        raise KnotForcingError(f"--spool: {chosen.spool} is not a folder. Give a folder, there already or not.")
    with locked(state, out):
        pass  # whoever makes it now is noticed before a model is loaded


def _inputs(chosen: argparse.Namespace) -> dict[str, Files]:
    """All files that are read, by the words that name them."""
    files = {f"--{name}": getattr(chosen, name) for name in ("portrait", "audio", "pose", "control")}
    files["--script"] = _script_file(chosen.script)
    files["--spool"] = None if chosen.spool is None else list(chosen.spool.glob("*.latents"))
    return files | model_arguments.files_read(chosen)


def _script_file(script: str) -> Path | None:
    """The file that a script stands in, where its words name one."""
    is_name = script and len(script) < 1000 and "\n" not in script and os.path.isfile(script)
    return Path(script) if is_name else None


def _sound(chosen: argparse.Namespace) -> tuple[AudioSource, float]:
    """The voice, and how long the video is."""
    if chosen.duration is not None and not 0 < chosen.duration < float("inf"):
        raise KnotForcingError(f"A video of {chosen.duration:g} s cannot be made. Give --duration in seconds, more than 0.")
    if chosen.audio is None and chosen.duration is None:
        raise KnotForcingError("How long should the video be? Give a voice by --audio, or a length in seconds by --duration.")
    audio = Silence(chosen.duration) if chosen.audio is None else AudioFile(chosen.audio)
    return audio, audio.seconds if chosen.duration is None else chosen.duration


def _driving(chosen: argparse.Namespace, audio: AudioSource) -> Driving:
    file = _script_file(chosen.script)
    script = chosen.script if file is None else file.read_text(encoding="utf-8", errors="replace")
    return Driving(
        audio=audio,
        pose=None if chosen.pose is None else PoseVideo(chosen.pose),
        idle=chosen.idle or 0.0,
        motion=chosen.motion_strength,
        prompt=chosen.prompt,
        script=script,
        negative_prompt=chosen.negative_prompt,
        audio_strength=chosen.audio_strength,
        pose_strength=chosen.pose_strength,
        expression_strength=chosen.expression_strength,
        control=None if chosen.control is None else ControlVideo(chosen.control),
        control_strength=chosen.control_strength,
        control_in_clean_pass=chosen.control_in_clean_pass,
    )


def _settings(loaded: model_arguments.LoadedModel, seconds: float) -> RolloutSettings:
    """The model's own; one that remembers every frame gets memory for as many as there will be."""
    settings = loaded.settings
    if settings.window is not None:
        return settings
    frames = latent_frames(pixel_frames_in(seconds, loaded.generator.card.fps))
    return replace(settings, max_frames=settings.output_span(settings.chunk_of(frames - 1)).stop)


def _anchor(image: torch.Tensor, loaded: model_arguments.LoadedModel) -> Anchor:
    generator = loaded.generator
    cut = livetalk_portrait if generator.card.image_channels == "portrait" else prepare_portrait
    return Anchor(encode_clip(loaded.vae, cut(image, loaded.width, loaded.height).to(generator.device)))


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


def _command(words: list[str]) -> str:
    kept = [word for word in words[1:] if word not in ("--resume", "--overwrite")]
    return shell_line(["python", "-m", "kf_core", *kept, "--resume"])
