"""The mouth's protocols as numbers and a table: closures, pause, voice, each beside the truth and the autoencoder alone."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from torch import Tensor

from kf_core.metrics.lip_sync import CONTROL_SECONDS, compare_openings

from .mouth import EVERY, WITH_IDLE, Pause, Protocol, pause_of, r_inside, share_shut, shut_below, tracks_of, voiced

CLOSURES, PAUSE, VOICE = "closures", "pause", "voice"


def numbers(
    folder: Path,
    protocols: Sequence[Protocol],
    *,
    fps: float,
    closures: Mapping[int, Sequence[int]],
    silent: tuple[float, float],
    opening: Tensor | None = None,
    true_openings: Mapping[int, Tensor] | None = None,
) -> dict:
    """All that the tracks of these protocols tell. `closures` by sitter, whose keys say which sitters count; `opening` [f] is what a
    recording suggests, where one was given; `true_openings` by sitter are those of the closures' clips."""
    found: dict[str, dict] = {}
    kept = {protocol.name: _of(tracks_of(folder, protocol.name, protocol.of), closures) for protocol in protocols}
    if tracks := kept.get(CLOSURES):
        found[CLOSURES] = _closures(tracks, closures, fps)
        for condition, sitters in tracks.items() if true_openings else ():
            found[CLOSURES][condition] |= _in_sync(sitters, true_openings, fps)
    if tracks := kept.get(PAUSE):
        pauses = {condition: [pause_of(t, silent, fps) for t in sitters.values()] for condition, sitters in tracks.items()}
        found[PAUSE] = {condition: _pause(each) for condition, each in pauses.items()}
    if opening is not None and (tracks := kept.get(VOICE)):
        where = voiced(opening, fps)
        read = {condition: [r_inside(t["mouth_open"], opening, where, fps) for t in each.values()] for condition, each in tracks.items()}
        found[VOICE] = {
            condition: {"r": fmean(r for r, _ in each), "lowest r": min(r for r, _ in each), "shifted": fmean(c for _, c in each)}
            for condition, each in read.items()
        }
    return found


def table(found: dict) -> str:
    """Markdown: one line a number, one column a condition."""
    conditions = [condition for condition in (*EVERY, WITH_IDLE) if any(condition in part for part in found.values())]
    lines = ["| | " + " | ".join(conditions) + " |", "|---|" + "---:|" * len(conditions)]
    for protocol, part in found.items():
        names = dict.fromkeys(name for condition in conditions for name in part.get(condition, {}))
        for name in names:
            cells = [f"{part[c][name]:.3g}" if name in part.get(c, {}) else "" for c in conditions]
            lines.append(f"| {protocol}: {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _of(tracks: Mapping[str, Mapping[int, dict]], seeds: Collection[int]) -> dict[str, dict[int, dict]]:
    """Only these sitters'."""
    return {condition: {seed: t for seed, t in sitters.items() if seed in seeds} for condition, sitters in tracks.items()}


def _closures(tracks: Mapping[str, Mapping[int, Mapping[str, Tensor]]], closures: Mapping[int, Sequence[int]], fps: float) -> dict:
    opening = {condition: {seed: t["mouth_open"] for seed, t in sitters.items()} for condition, sitters in tracks.items()}
    threshold = shut_below(opening["truth"], closures)
    if threshold is None:
        return {condition: {} for condition in opening}
    shift = round(CONTROL_SECONDS * fps)
    found = {}
    for condition, sitters in opening.items():
        shares = [share_shut(track, closures[seed], threshold) for seed, track in sitters.items()]
        away = [share_shut(track, closures[seed], threshold, by) for seed, track in sitters.items() for by in (-shift, shift)]
        known = [share for share in shares if share is not None]
        found[condition] = {
            "mouth shut at m, b, p": fmean(known),
            "lowest of a sitter": min(known),
            f"shut {CONTROL_SECONDS:g} s away": fmean(share for share in away if share is not None),
            "threshold": threshold,
        }
    return found


def _in_sync(sitters: Mapping[int, Mapping[str, Tensor]], true: Mapping[int, Tensor], fps: float) -> dict[str, float]:
    each = [compare_openings(tracks["mouth_open"], true[seed], fps) for seed, tracks in sitters.items()]
    return {
        "mouth r": fmean(one.r for one in each),
        "lowest mouth r of a sitter": min(one.r for one in each),
        f"mouth r, shifted {CONTROL_SECONDS:g} s": fmean(one.shifted for one in each),
    }


def _pause(pauses: Sequence[Pause]) -> dict:
    return {
        "opening, share of speech": fmean(pause.opening_share for pause in pauses),
        "largest of a sitter": max(pause.opening_share for pause in pauses),
        "widest that any sitter opens": max(pause.widest for pause in pauses),
        "blinks per minute": fmean(pause.blinks_per_minute for pause in pauses),
        "head motion, share of speech": fmean(pause.head_share for pause in pauses),
    }
