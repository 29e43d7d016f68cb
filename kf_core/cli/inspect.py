"""`inspect`: what a model file or a video is, read from its header; nothing in it is run."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from ..checkpoints.auxiliary import beside
from ..checkpoints.checkpoint import Checkpoint, identify, nearest
from ..checkpoints.decoder_card import DecoderCard
from ..checkpoints.read import read_header
from ..errors import KnotForcingError
from ..models.card import ModelCard
from ..models.shapes import shapes_of
from ..settings import RolloutSettings

VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".m4v"}
NAMES_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="model file (.safetensors, .pt, .pth), any file of several, or a video")
    parser.add_argument("--lora", type=Path, metavar="FILE", help="a second file that corrects it: do they fit?")
    parser.add_argument("--known-as", metavar="NAME", help="what it is, where the file does not tell")
    parser.add_argument("--names", action="store_true", help="list every tensor")


def run(chosen: argparse.Namespace) -> int:
    lines = _of_video(chosen.file) if chosen.file.suffix.lower() in VIDEOS else _of_model(chosen)
    print("\n".join(lines))
    return 0


def _of_video(path: Path) -> list[str]:
    from ..media.fragments import read_fragments  # only here: a model file needs no video library
    from ..media.playback import probe

    facts = probe(path)
    with path.open("rb") as file:
        found = read_fragments(file)
    lines = [
        f"video        {facts.seconds:.2f} s, {facts.frames} frames of {facts.width}x{facts.height} at {facts.fps:g} FPS",
        f"sound        {facts.sound_seconds:.2f} s, {facts.channels} x {facts.sample_rate} Hz" if facts.has_sound else "sound        none",
    ]
    if found.is_finished:
        lines.append(f"file         finished: an ordinary MP4, written in {len(found.whole)} fragments")
    elif found.is_fragmented and found.whole:
        unused = found.length - found.stop
        lines.append(
            f"file         growing: {len(found.whole)} whole fragments" + (f", {unused} unused bytes at the end" if unused else "")
        )
    return lines + [f"{name:<12} {text}" for name, text in facts.metadata.items() if name in ("title", "comment")]


def _of_model(chosen: argparse.Namespace) -> list[str]:
    found = identify(chosen.file, lora=chosen.lora, known_as=chosen.known_as)
    facts = read_header(chosen.file) if found is None else found.file.facts
    kinds = sorted({tensor.dtype for tensor in facts.tensors.values()})
    several = f" in {facts.num_files} files" if facts.num_files > 1 else ""
    lines = [
        f"file         {chosen.file.name}: {facts.kind}{several}, {facts.num_bytes / 1e6:,.1f} MB",
        f"tensors      {len(facts.tensors)}, {facts.values:,} values, {', '.join(kinds)}",
        f"fingerprint  {facts.fingerprint}",
    ]
    if found is None:
        other = beside(facts.tensors, chosen.file.name, facts.metadata)
        lines.append(f"is           {other}" if other else f"model        not one this version knows. {nearest(facts.shapes)}".rstrip())
        lines += _belonging(facts.metadata)
    else:
        lines += _of_checkpoint(found) + _of_card(found.card)
    shown = list(facts.tensors) if chosen.names else list(facts.tensors)[:NAMES_SHOWN] if found is None and not other else []
    lines += [f"  {name} {list(facts.tensors[name].shape)} {facts.tensors[name].dtype}" for name in shown]
    if len(facts.tensors) > len(shown) > 0:
        lines.append(f"  ... and {len(facts.tensors) - len(shown)} more (--names shows all)")
    return lines


def _belonging(metadata: Mapping[str, str]) -> list[str]:
    """Of a decoder alone: whether it is for the latents of the pack's own VAE."""
    card = DecoderCard.of(metadata)
    if card is None or not card.encoder:
        return []
    from ..checkpoints.decoder_only import VAE_FILE, encoder_name  # only here: for a model file the header is enough
    from ..checkpoints.lazy_tensors import read_beside
    from ..checkpoints.load import bundled

    is_own = card.encoder == encoder_name(read_beside(bundled(VAE_FILE)))
    return [f"belongs to   {'the bundled' if is_own else 'another VAE than the bundled'} {VAE_FILE}"]


def _of_checkpoint(found: Checkpoint) -> list[str]:
    card = found.card
    told = "" if found.recognised.told_by == "its card" else f" (told by {found.recognised.told_by})"
    lines = [f"model        {card.name}{told}: {card.layers} layers of {card.dim}, {card.heads} heads"]
    kept = [f"its dict `{found.entry}`"] if found.entry else []
    kept += ["fp8, made whole on loading"] if found.is_fp8 else []
    kept += ["a LoRA, folded in on loading"] if found.has_lora else []
    lines += [f"weights      {', '.join(kept)}"] if kept else []
    lines += [f"ignored      its other dicts: {', '.join(others)}"] if (others := _others(found)) else []
    try:
        found.refuse_misfit(shapes_of(card))
        lines.append(f"fits         all {len(found.parts)} tensors, nothing missing, nothing left over")
    except KnotForcingError as problem:
        lines.append(f"fits not     {problem}")
    return lines + [f"remark       {remark}" for remark in found.remarks]


def _others(found: Checkpoint) -> list[str]:
    return [entry for entry in found.file.entries if entry != found.entry][:4]


def _of_card(card: ModelCard) -> list[str]:
    hears = [card.audio.kind] if card.audio else []
    reads = [] if card.text.kind == "none" else [f"prompts ({card.text.kind})"]
    signals = hears + reads + ["pose"] * (card.pose is not None) + list(card.expression) + ["motion strength"] * card.motion_strength
    lines = [
        f"makes        {card.width}x{card.height} at {card.fps:g} FPS",
        f"obeys        {', '.join(signals) or 'nothing but its portrait'}",
        f"needs        {', '.join(_needs(card))}",
        f"own rollout  {_rollout(card.rollout)}",
    ]
    if (other := card.under_knot_forcing()) != card.rollout:
        lines.append(f"--method     knot-forcing: {_rollout(other)}")
    lines.append(f"licence      {card.licence}{'; must be agreed to: --accept-licence' if card.restricted else ''}")
    notes = {"restricted": card.restricted, "note": card.note, "source": card.source, "verified": card.verified}
    return lines + [f"{name:<12} {text}" for name, text in notes.items() if text]


def _needs(card: ModelCard) -> list[str]:
    if card.text.kind == "none" and (card.audio is None or card.audio.kind == "log-mel"):
        return ["its own VAE"]
    needs = ["Wan 2.1's VAE (wan_2.1_vae.safetensors)", "the UMT5-XXL text encoder"]
    return needs + ["wav2vec2-base-960h"] if card.audio is not None and card.audio.kind == "wav2vec2" else needs


def _rollout(rollout: RolloutSettings) -> str:
    chunk = f"chunk {rollout.chunk}" + (f" (the first {rollout.first_chunk})" if rollout.first_chunk else "")
    steps = f"{len(rollout.schedule)} steps" + (f" (the first chunk {len(rollout.first_schedule)})" if rollout.first_schedule else "")
    guidance = "" if not rollout.is_guided else f" with guidance {rollout.guidance:g} (two passes each)"
    knot = "no knot" if rollout.knot is None else f"knot {rollout.knot_frames} ({rollout.knot}{', fused' if rollout.fuse else ''})"
    anchor = "no anchor" if rollout.anchor is None else f"anchor {type(rollout.anchor).__name__.lower()}"
    pinned = f" + the first {rollout.pinned} pinned ({rollout.pinned_place})" if rollout.pinned else ""
    first = {"free": "", "pin": ", frame 0 is the portrait", "tie": ", begins on the portrait"}[rollout.first_frame]
    return f"{chunk}, {steps}{guidance}, {knot}, {anchor}, window {rollout.window or 'unlimited'}{pinned}{first}"
