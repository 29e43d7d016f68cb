"""`bench`: how fast this machine makes video, in each precision, how near its limit that is, and whether time and memory stay flat."""

import argparse
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from tqdm import tqdm

from ..conditioning.anchor import Anchor
from ..conditioning.audio import Silence
from ..conditioning.driving import Driving
from ..errors import KnotForcingError
from ..metrics.chunk_timing import frames_per_second, laps
from ..metrics.flops import chunk_work, measure_limits
from ..metrics.parity import as_plain, difference, first_latents
from ..metrics.random_model import PRESETS, random_decoder, random_generator
from ..metrics.speed import Speed, denoised_alternately, machine, measure
from ..models.attention import attention_called
from ..outputs import refuse_outputs
from ..planning.presets import Plan
from ..precision import fast_dtype
from ..session.executor import InlineExecutor
from ..session.stream import Stream
from ..timeline import pixel_frames
from ..vae.streaming import encode_clip
from ..vae.wan import SPATIAL_STRIDE, Z_DIM
from ..writing import write_text
from . import model as model_arguments
from . import soak as hours
from .words import given, refuse

FORWARDS_COMPARED = 10  # chunks, at most
OF_FILES = {"checkpoint", "lora", "known_as", "accept_licence", "vae", "decoder", "audio_encoder"}  # or of what is in them
UNREAD = {"text_encoder", "control_module"}
EACH = ((), ("compile",))  # ways to accelerate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--chunks", type=int, default=20, metavar="N", help="chunks to make; 2000 show whether it stays flat (default: 20)")
    length.add_argument("--seconds", type=float, metavar="N", help="instead of --chunks: one run of so much video; 3600 is an hour")
    parser.add_argument("--film", type=Path, metavar="FILE", help="with --seconds: write the video, too, an .mp4")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every chunk's numbers here")
    parser.add_argument("--preset", choices=PRESETS, help="random weights of this size instead of a model file: nothing to download")
    parser.add_argument("--size", metavar="WxH", help="size of the video in pixels: 832x480")
    parser.add_argument("--tiny-vae", action="store_true", help="with --preset: decode by the tiny decoder instead of Wan's")
    parser.add_argument("--plain", action="store_true", help="denoise by the plain forward alone, without the optimized forward")
    parser.add_argument("--each", action="store_true", help="as it is, and with --compile")
    model_arguments.add_arguments(parser)


def run(chosen: argparse.Namespace) -> int:
    _refuse_unused(chosen)
    _check_outputs(chosen)
    if chosen.size is not None:
        chosen.width, chosen.height = _size(chosen.size)
    if chosen.threads is not None:
        model_arguments.set_threads(chosen.threads)
    model_arguments.device_called(chosen.device)
    _note(filter(None, [model_arguments.remark_on_device(chosen)]))
    if chosen.seconds is not None:
        stream, tuning = stream_of(chosen, _precisions(chosen)[0])
        long_run = hours.run(chosen, as_plain(stream) if chosen.plain else stream, tuning)
        if chosen.json is not None:
            write_text(chosen.json, long_run.to_json() + "\n")
        return 0
    results, combinations = {}, _combinations(chosen)
    for precision in _precisions(chosen):
        exact = first_latents(as_plain(stream_of(accelerated(chosen), precision, is_noted=False)[0]), chosen.chunks)
        for accelerators in combinations:
            name = " ".join((precision, *accelerators))
            stream, tuning = stream_of(accelerated(chosen, *accelerators), precision)
            if chosen.plain:
                stream = as_plain(stream)
            off = difference(first_latents(stream, chosen.chunks), exact)  # first: what is compiled is compiled now
            with tqdm(total=chosen.chunks, unit=" chunks", desc=name, file=sys.stderr) as bar:
                speed = measure(stream, chosen.chunks, lambda _: bar.update())  # noqa: B023  it is called at once
            print(f"{name}: {speed.summary()}")
            print(
                f"off the plain forward, {name.removeprefix(precision).strip() or 'nothing accelerated'}: {off['largest']:.2g} of the "
                f"largest value at most, {off['root_mean_square']:.2g} root mean square over root mean square"
            )
            beside = _beside(stream, speed, chosen, tuning)
            results[name] = dataclasses.asdict(speed) | {"difference": off, "limit": limit(stream, speed), "beside": beside}
            if not chosen.plain:
                results[name]["forwards"] = _forwards(stream, min(chosen.chunks, FORWARDS_COMPARED))
            del stream
    print(machine())
    if chosen.json is not None:
        write_text(chosen.json, json.dumps({"machine": machine(), **results}) + "\n")
    return 0


def _refuse_unused(chosen: argparse.Namespace) -> None:
    """Raises KnotForcingError for what would change nothing of what is measured."""
    words = given(chosen, add_arguments)
    refuse(words, UNREAD, "the stream that is measured has no words and no control video. Leave it out.")
    if chosen.preset is None:
        refuse(words, {"tiny_vae"}, "it is the decoder of a --preset. Give a --preset, or the file of a tiny decoder by --decoder.")
    else:
        refuse(words, OF_FILES, "a --preset has random weights and reads no file. Leave it out, or leave out --preset.")
    if chosen.plain:
        refuse(words, {"each", "compile"}, "the plain forward is not compiled. Leave it out, or leave out --plain.")
    if chosen.seconds is None:
        refuse(words, {"film"}, "only a run of --seconds writes a video. Say how long: --seconds 60.")
    else:
        refuse(words, {"each"}, "a run of --seconds is one run. Leave out one of them; --compile goes with --seconds.")
    if chosen.chunks < 1:
        raise KnotForcingError(f"{chosen.chunks} chunks show nothing. Give --chunks 1 or more.")


def _check_outputs(chosen: argparse.Namespace) -> None:
    """Refuse what cannot be written, or must not be written over, before anything is measured."""
    film = chosen.film
    outputs = {"--film": film, "--json": chosen.json}
    if film is not None:
        if film.suffix.lower() != ".mp4":
            raise KnotForcingError(f"{film} is not an .mp4 name. Call the video, for example, {film.with_suffix('.mp4')}.")
        outputs["the state beside --film"] = hours.state_of(film)
    refuse_outputs(outputs, model_arguments.files_read(chosen))
    if film is not None and os.path.lexists(film):
        raise KnotForcingError(f"{film} is there already. Remove it, or give another name by --film.")


def accelerated(chosen: argparse.Namespace, *accelerators: str) -> argparse.Namespace:
    """The same, with these accelerators and no others."""
    return argparse.Namespace(**{**vars(chosen), "compile": "compile" in accelerators})


def _combinations(chosen: argparse.Namespace) -> list[tuple[str, ...]]:
    """What is measured, one after the other."""
    return list(EACH) if chosen.each else [("compile",) if chosen.compile else ()]


def limit(stream: Stream, speed: Speed) -> dict[str, float]:
    """Says, and returns, what the generator's work is and how much of what the machine can do was reached."""
    height, width = (side * SPATIAL_STRIDE for side in stream.anchor.latent.shape[-2:])
    dtype = stream.model.dtype
    work = chunk_work(stream.model.card, stream.settings, width=width, height=height, bytes_per_value=dtype.itemsize)
    limits = measure_limits(stream.model.device, dtype)
    least, denoising = work.seconds_at(limits), speed.denoising
    print(
        f"{work.summary()}; this machine at its best ({limits.operations_per_second / 1e12:.3g} TFLOP/s, "
        f"{limits.bytes_per_second / 1e9:.3g} GB/s) would need {least:.3g} s, and {denoising:.3g} s were taken: "
        f"{least / denoising:.0%} of the limit"
    )
    return {"operations": work.operations, "bytes": work.num_bytes, **dataclasses.asdict(limits), "least_seconds": least}


def _forwards(stream: Stream, chunks: int) -> dict[str, float]:
    """Says, and returns, what a chunk takes under the plain forward and under the optimized forward, in turn."""
    plain, hot = denoised_alternately([dataclasses.replace(stream, model=stream.model.plain()), stream], chunks)
    times = f"plain forward {plain * 1000:.0f} ms, optimized forward {hot * 1000:.0f} ms"
    print(f"{times} to generate a chunk: {plain / hot:.2f} x (medians of {chunks}, in turn)")
    return {"plain": plain, "hot": hot}


def _beside(stream: Stream, speed: Speed, chosen: argparse.Namespace, tuning: Plan) -> float | None:
    """Says, and returns, the frames a second where they are made while the next chunk is denoised; None where that is not done."""
    with model_arguments.worker(chosen, stream, tuning) as worker:
        if isinstance(worker, InlineExecutor):
            return None
        end = pixel_frames(stream.settings.output_span(chosen.chunks - 1).stop)
        found = frames_per_second(laps(stream.steps(worker=worker, until=end)))
    print(
        f"frames made beside the denoising: {found:.1f} a second ({found / speed.frames_per_second:.2f} x in turn, "
        f"{found / speed.denoised_per_second:.0%} of what the generator makes alone)"
    )
    return found


def _precisions(chosen: argparse.Namespace) -> list[str]:
    """The one that was asked for; else what `animate` would take, and fp32 beside it (not of the large preset: it may not fit)."""
    if chosen.precision != "auto":
        return [chosen.precision]
    fast = {dtype: name for name, dtype in model_arguments.PRECISIONS.items()}[fast_dtype(chosen.device)]
    return [fast] if chosen.preset else list(dict.fromkeys((fast, "fp32")))


def stream_of(chosen: argparse.Namespace, precision: str, *, is_noted: bool = True) -> tuple[Stream, Plan]:
    """A grey portrait in silence, without end, and how its frames are made; a preset's portrait is noise."""
    driving = Driving(audio=Silence())
    if chosen.preset is None:
        loaded = model_arguments.load_model(argparse.Namespace(**{**vars(chosen), "precision": precision}))
        _note(loaded.remarks if is_noted else ())
        grey = torch.full((1, 3, 1, loaded.height, loaded.width), 0.5, device=loaded.generator.device)
        stream = Stream(
            model=loaded.generator,
            decoder=loaded.decoder,
            anchor=Anchor(encode_clip(loaded.vae, grey)),
            driving=driving,
            settings=loaded.settings,
            audio_encoder=loaded.audio_encoder,
        )
        return stream, loaded.tuning
    preset, dtype = PRESETS[chosen.preset], model_arguments.PRECISIONS[precision]
    card = preset.card
    settings = model_arguments.settings_for(chosen, card)
    device = model_arguments.device_called(chosen.device)
    place = device if chosen.decoder_device is None else model_arguments.device_called(chosen.decoder_device)
    attention, fallback = attention_called(chosen.attention, device)
    generator = random_generator(card, dtype=dtype, device=device, attention=attention)
    width, height = model_arguments.size_of(chosen, generator)
    latent = torch.randn(1, Z_DIM, 1, height // SPATIAL_STRIDE, width // SPATIAL_STRIDE, generator=torch.Generator().manual_seed(0))
    at_hand = random_decoder(tiny=chosen.tiny_vae, dim=preset.vae_dim, dtype=dtype, device=place)
    decoder, tuning, remarks = model_arguments.fit(chosen, generator, settings, [at_hand], width=width, height=height)
    _note(filter(None, (fallback, *remarks)) if is_noted else ())
    stream = Stream(model=generator, decoder=decoder, anchor=Anchor(latent.to(device)), driving=driving, settings=settings)
    return stream, tuning


def _note(remarks: Iterable[str]) -> None:
    for remark in remarks:
        print(f"Note: {remark}", file=sys.stderr)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None or any(int(side) % (2 * SPATIAL_STRIDE) or int(side) == 0 for side in found.groups()):
        raise KnotForcingError(f"--size {text} is not a size. Give width x height in multiples of {2 * SPATIAL_STRIDE}: 832x480.")
    return int(found[1]), int(found[2])
