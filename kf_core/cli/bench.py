"""`bench`: how fast this machine makes video, in each precision, how near its limit that is, and whether time and memory stay flat."""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from tqdm import tqdm

from ..checkpoints.load import fast_dtype
from ..conditioning.anchor import Anchor
from ..conditioning.audio import Silence
from ..conditioning.driving import Driving
from ..errors import KnotForcingError
from ..evaluation.exactness import as_plain, difference, first_latents
from ..evaluation.laps import laps, pictures_per_second
from ..evaluation.random_model import PRESETS, random_decoder, random_generator
from ..evaluation.speed import Speed, drawn_in_turn, machine, measure
from ..evaluation.work import chunk_work, measure_limits
from ..stream import Stream
from ..timeline import pixel_frames
from ..vae.streaming import VideoDecoder, encode_clip
from ..vae.wan import SPATIAL_STRIDE, Z_DIM
from ..worker import InTurn
from . import hours
from . import model as model_arguments

FORWARDS_COMPARED = 10  # chunks, at most
ACCELERATORS = ("compile", "fp8", "graphs")
EACH = ((), *((name,) for name in ACCELERATORS), ("compile", "graphs"), ACCELERATORS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chunks", type=int, default=20, metavar="N", help="chunks to make; 2000 show whether it stays flat (default: 20)")
    parser.add_argument("--seconds", type=float, metavar="N", help="instead of --chunks: one run of so much video; 3600 is an hour")
    parser.add_argument("--film", type=Path, metavar="FILE", help="with --seconds: write the video, too, an .mp4")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every chunk's numbers here")
    parser.add_argument("--preset", choices=PRESETS, help="random weights of this size instead of a model file: nothing to download")
    parser.add_argument("--size", metavar="WxH", help="size of the video in pixels: 832x480")
    parser.add_argument("--tiny-vae", action="store_true", help="with --preset: decode by the tiny decoder instead of Wan's")
    parser.add_argument("--plain", action="store_true", help="draw by the plain forward alone, without the hot path")
    parser.add_argument("--each", action="store_true", help="each of what accelerates in turn, and together")
    model_arguments.add_arguments(parser)


def run(chosen: argparse.Namespace) -> int:
    if chosen.size is not None:
        chosen.width, chosen.height = _size(chosen.size)
    if chosen.threads is not None:
        model_arguments.set_threads(chosen.threads)
    if chosen.seconds is not None:
        long_run = hours.run(chosen, stream_of(chosen, _precisions(chosen)[0]))
        if chosen.json is not None:
            chosen.json.write_text(long_run.to_json() + "\n", encoding="utf-8")
        return 0
    results, combinations = {}, _combinations(chosen)
    for precision in _precisions(chosen):
        exact = first_latents(as_plain(stream_of(accelerated(chosen), precision, is_noted=False)), chosen.chunks)
        for accelerators in combinations:
            name = " ".join((precision, *accelerators))
            stream = stream_of(accelerated(chosen, *accelerators), precision)
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
            beside = _beside(stream, speed, chosen)
            results[name] = dataclasses.asdict(speed) | {"difference": off, "limit": limit(stream, speed), "beside": beside}
            if not chosen.plain:
                results[name]["forwards"] = _forwards(stream, min(chosen.chunks, FORWARDS_COMPARED))
            del stream
    print(machine())
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"machine": machine(), **results}) + "\n", encoding="utf-8")
    return 0


def accelerated(chosen: argparse.Namespace, *accelerators: str) -> argparse.Namespace:
    """The same, with these accelerators and no others."""
    return argparse.Namespace(**{**vars(chosen), **{name: name in accelerators for name in ACCELERATORS}})


def _combinations(chosen: argparse.Namespace) -> list[tuple[str, ...]]:
    """What is measured, one after the other."""
    if not chosen.each:
        return [tuple(name for name in ACCELERATORS if getattr(chosen, name))]
    if torch.device(chosen.device).type != "cuda":
        _note([f"There are no CUDA graphs on {chosen.device}, so --each leaves them out: they need an NVIDIA or AMD card."])
    return each_on(chosen.device)


def each_on(device: torch.device | str) -> list[tuple[str, ...]]:
    """The combinations of what accelerates there."""
    if torch.device(device).type == "cuda":
        return list(EACH)
    return list(dict.fromkeys(tuple(name for name in names if name != "graphs") for names in EACH))


def limit(stream: Stream, speed: Speed) -> dict[str, float]:
    """Says, and returns, what the generator's work is and how much of what the machine can do was reached."""
    height, width = (side * SPATIAL_STRIDE for side in stream.anchor.latent.shape[-2:])
    dtype = stream.model.dtype
    work = chunk_work(stream.model.card, stream.settings, width=width, height=height, bytes_per_value=dtype.itemsize)
    limits = measure_limits(stream.model.device, dtype)
    least, drawing = work.seconds_at(limits), speed.drawing
    print(
        f"{work.summary()}; this machine at its best ({limits.operations_per_second / 1e12:.3g} TFLOP/s, "
        f"{limits.bytes_per_second / 1e9:.3g} GB/s) would need {least:.3g} s, and {drawing:.3g} s were taken: "
        f"{least / drawing:.0%} of the limit"
    )
    return {"operations": work.operations, "bytes": work.num_bytes, **dataclasses.asdict(limits), "least_seconds": least}


def _forwards(stream: Stream, chunks: int) -> dict[str, float]:
    """Says, and returns, what a chunk takes under the plain forward and under the hot path, in turn."""
    plain, hot = drawn_in_turn([dataclasses.replace(stream, model=stream.model.plain()), stream], chunks)
    times = f"plain forward {plain * 1000:.0f} ms, hot path {hot * 1000:.0f} ms"
    print(f"{times} to draw a chunk: {plain / hot:.2f} x (medians of {chunks}, in turn)")
    return {"plain": plain, "hot": hot}


def _beside(stream: Stream, speed: Speed, chosen: argparse.Namespace) -> float | None:
    """Says, and returns, the pictures a second where they are made while the next chunk is drawn; None where that is not done."""
    with model_arguments.worker(chosen, stream) as worker:
        if isinstance(worker, InTurn):
            return None
        end = pixel_frames(stream.settings.emitted(chosen.chunks - 1).stop)
        found = pictures_per_second(laps(stream.steps(worker=worker, until=end)))
    print(
        f"pictures made beside the drawing: {found:.1f} a second ({found / speed.pictures_per_second:.2f} x in turn, "
        f"{found / speed.drawn_per_second:.0%} of what the generator draws alone)"
    )
    return found


def _precisions(chosen: argparse.Namespace) -> list[str]:
    """The one that was asked for; else what `animate` would take, and fp32 beside it (not of the large preset: it may not fit)."""
    if chosen.precision != "auto":
        return [chosen.precision]
    fast = {dtype: name for name, dtype in model_arguments.PRECISIONS.items()}[fast_dtype(chosen.device)]
    return [fast] if chosen.preset else list(dict.fromkeys((fast, "fp32")))


def stream_of(chosen: argparse.Namespace, precision: str, *, is_noted: bool = True) -> Stream:
    """A grey portrait in silence, without end; a preset's portrait is noise."""
    driving = Driving(audio=Silence())
    if chosen.preset is None:
        loaded = model_arguments.load_model(argparse.Namespace(**{**vars(chosen), "precision": precision}))
        _note(loaded.remarks if is_noted else ())
        grey = torch.full((1, 3, 1, loaded.height, loaded.width), 0.5, device=loaded.generator.device)
        return Stream(
            model=loaded.generator,
            decoder=VideoDecoder(loaded.vae) if chosen.decoder is None else loaded.decoder,
            anchor=Anchor(encode_clip(loaded.vae, grey)),
            driving=driving,
            settings=loaded.settings,
            audio_encoder=loaded.audio_encoder,
        )
    preset, dtype, device = PRESETS[chosen.preset], model_arguments.PRECISIONS[precision], torch.device(chosen.device)
    card = preset.card
    width, height = chosen.width or card.width, chosen.height or card.height
    latent = torch.randn(1, Z_DIM, 1, height // SPATIAL_STRIDE, width // SPATIAL_STRIDE, generator=torch.Generator().manual_seed(0))
    generator = random_generator(card, dtype=dtype, device=device)
    _note(model_arguments.accelerate(chosen, generator))
    return Stream(
        model=generator,
        decoder=random_decoder(tiny=chosen.tiny_vae, dim=preset.vae_dim, dtype=dtype, device=device),
        anchor=Anchor(latent.to(device)),
        driving=driving,
        settings=card.rollout,
    )


def _note(remarks: Iterable[str]) -> None:
    for remark in remarks:
        print(f"Note: {remark}", file=sys.stderr)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None or any(int(side) % (2 * SPATIAL_STRIDE) or int(side) == 0 for side in found.groups()):
        raise KnotForcingError(f"--size {text} is not a size. Give width x height in multiples of {2 * SPATIAL_STRIDE}: 832x480.")
    return int(found[1]), int(found[2])
