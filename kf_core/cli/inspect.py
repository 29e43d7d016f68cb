"""`inspect`: what a model file or a video is, read from its header; nothing in it is run."""

import argparse
from pathlib import Path

from ..checkpoints.key_maps import wan_name
from ..checkpoints.known import recognise
from ..checkpoints.read import FileFacts, read_header
from ..media.fragments import read_fragments
from ..media.playback import probe
from ..model.card import CARD_KEY, ModelCard

VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".m4v"}
NAMES_SHOWN = 12
CONTAINERS = ("generator_ema.", "generator.", "state_dict.")  # dicts inside PyTorch files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="model file (.safetensors, .pt, .pth) or video")
    parser.add_argument("--names", action="store_true", help="list every tensor")


def run(chosen: argparse.Namespace) -> int:
    lines = _of_video(chosen.file) if chosen.file.suffix.lower() in VIDEOS else _of_model(chosen.file, chosen.names)
    print("\n".join(lines))
    return 0


def _of_video(path: Path) -> list[str]:
    facts = probe(path)
    with path.open("rb") as file:
        found = read_fragments(file)
    lines = [
        f"video        {facts.seconds:.2f} s, {facts.pictures} pictures of {facts.width}x{facts.height} at {facts.fps:g} FPS",
        f"sound        {facts.sound_seconds:.2f} s, {facts.channels} x {facts.sample_rate} Hz" if facts.has_sound else "sound        none",
    ]
    if found.is_fragmented and found.whole:
        broken = found.length - found.whole[-1].stop
        lines.append(f"fragments    {len(found.whole)} whole" + (f", {broken} bytes broken at the end" if broken else ""))
    return lines + [f"{name:<12} {text}" for name, text in facts.metadata.items() if name in ("title", "comment")]


def _of_model(path: Path, with_names: bool) -> list[str]:
    facts = read_header(path)
    kinds = sorted({tensor.dtype for tensor in facts.tensors.values()})
    lines = [
        f"file         {path.name}: {facts.kind}, {facts.num_bytes / 1e6:,.1f} MB",
        f"tensors      {len(facts.tensors)}, {facts.values:,} values, {', '.join(kinds)}",
        f"fingerprint  {facts.fingerprint}",
    ]
    card = _card(path, facts)
    lines += ["model        not one this version knows"] if card is None else _of_card(card, CARD_KEY in facts.metadata)
    shown = list(facts.tensors) if with_names else list(facts.tensors)[:NAMES_SHOWN] if card is None else []
    lines += [f"  {name} {list(facts.tensors[name].shape)} {facts.tensors[name].dtype}" for name in shown]
    if len(facts.tensors) > len(shown) > 0:
        lines.append(f"  ... and {len(facts.tensors) - len(shown)} more (--names shows all)")
    return lines


def _card(path: Path, facts: FileFacts) -> ModelCard | None:
    if CARD_KEY in facts.metadata:
        return ModelCard.from_json(facts.metadata[CARD_KEY])
    shapes = {}
    for name, shape in facts.shapes.items():
        container = next((c for c in CONTAINERS if name.startswith(c)), "")
        shapes.setdefault(wan_name(name.removeprefix(container)), shape)
    return recognise(shapes, path.name)


def _of_card(card: ModelCard, is_own: bool) -> list[str]:
    rollout = card.rollout
    hears = [card.audio.kind] if card.audio else []
    reads = [] if card.text.kind == "none" else [f"prompts ({card.text.kind})"]
    signals = hears + reads + ["pose"] * (card.pose is not None) + list(card.expression) + ["motion strength"] * card.motion_strength
    knot = "no knot" if rollout.knot is None else f"knot {rollout.knot_frames} ({rollout.knot}{', fused' if rollout.fuse else ''})"
    return [
        f"model        {card.name}{'' if is_own else ' (told by its shapes)'}: {card.layers} layers of {card.dim}, {card.heads} heads",
        f"makes        {card.width}x{card.height} at {card.fps:g} FPS",
        f"obeys        {', '.join(signals) or 'nothing but its portrait'}",
        f"rollout      chunk {rollout.chunk}, {knot}, window {rollout.window or 'unlimited'}, {len(rollout.schedule)} steps",
        f"licence      {card.licence}",
        *([f"note         {card.note}"] if card.note else []),
        *([f"source       {card.source}"] if card.source else []),
    ]
