"""What a mouth must do that a correlation does not tell: close on m, b and p, rest in a pause while the face lives on, follow a recording.

mouth r: correlation of the read opening with the true one, and the same shifted by half a second.
closures: at the middle of each m, b and p the read opening, the least within one frame (62 ms), is not above what is read off
the *true* frames at nine of ten closures. The control asks the same half a second away: mouths are shut at other times, too.
pause: the mean opening in a silence of five seconds, a quarter of a second from its ends, as a share of its mean while it speaks;
beside it blinks a minute and how far the head moves. voice: correlation with the opening that the sound alone suggests, inside
voiced stretches, and the same shifted by half a second.
All numbers come from tracks that the reader (`reader.py`) reads off frames; the tracks are kept, frames are not. Our own measures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kf_core.conditioning.idle import NATURAL
from kf_core.metrics.lip_sync import CONTROL_SECONDS, correlation
from kf_core.timeline import PixelSpan

from .ablation import CODEC, CONDITIONS, POSE_AND_SOUND, TRUTH, Equipment
from .batched_rollout import Sitter, play, through_codec
from .results import Results, claim

READ = ("mouth_open", "blink", "yaw", "pitch", "roll")
SHUT_SHARE = 0.9  # of the true closures is read as shut: where the threshold lies
SLACK = 1  # frames
EDGE_SECONDS = 0.25  # of a pause that are not counted at its ends
BLINK = 0.5  # read blink above which the eyes are shut
VOICED = 0.1  # opening suggested by the sound, the most within VOICED_SECONDS, above which somebody speaks
VOICED_SECONDS = 0.3
BLOCK = 64  # frames
EVERY = (TRUTH, CODEC, *CONDITIONS)
WITH_IDLE = "sound and idle life"  # by sound alone, as people get it who give no pose: measured where it is asked for
RESULTS = "tracks.jsonl"


@dataclass(frozen=True)
class Protocol:
    """A way to sit: by what name, what of (a length, a recording: results of another are not taken for these), and who sits for a seed."""

    name: str
    of: str
    seat: Callable[[int], Sitter]
    conditions: tuple[str, ...] = EVERY


def run(equipment: Equipment, protocols: Sequence[Protocol], seeds: Sequence[int], folder: Path, *, together: int = 4) -> None:
    """Read the tracks of every protocol, condition and sitter that are not there yet."""
    claim(folder, equipment.fingerprint())
    results = Results(folder / RESULTS)
    done = {(line["protocol"], line["of"], line["condition"], line["seed"]) for line in results.read()}
    groups = [seeds[start : start + together] for start in range(0, len(seeds), together)]
    jobs = [(protocol, condition, group) for protocol in protocols for group in groups for condition in protocol.conditions]
    with tqdm(jobs, unit="rollout", desc="mouths") as bar:
        for protocol, condition, group in bar:
            missing = [seed for seed in group if (protocol.name, protocol.of, condition, seed) not in done]
            if missing:
                bar.set_postfix_str(f"{protocol.name}, {condition}")
                sitters = [protocol.seat(seed) for seed in missing]
                tracks = _tracks(equipment, sitters, condition)
                key = dict(protocol=protocol.name, of=protocol.of, condition=condition)
                results.append(key | {"seed": s.seed, "tracks": t} for s, t in zip(sitters, tracks, strict=True))


def tracks_of(folder: Path, protocol: str, of: str) -> dict[str, dict[int, dict[str, Tensor]]]:
    """condition -> seed -> what was read: [f] each."""
    found: dict[str, dict[int, dict[str, Tensor]]] = {}
    for line in Results(folder / RESULTS).read():
        if (line["protocol"], line["of"]) == (protocol, of):
            tracks = {name: torch.tensor(track) for name, track in line["tracks"].items()}
            found.setdefault(line["condition"], {})[line["seed"]] = tracks
    return found


def _tracks(equipment: Equipment, sitters: Sequence[Sitter], condition: str) -> list[dict[str, list[float]]]:
    count = sitters[0].num_frames
    if condition == TRUTH:
        spans = [PixelSpan(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
        played = ((span, [sitter.frames(span) for sitter in sitters]) for span in spans)
    elif condition == CODEC:
        played = through_codec(equipment.vae, sitters)
    else:
        own = equipment.model.card.rollout
        idle = NATURAL if condition == WITH_IDLE else 0.0
        played = play(equipment.model, equipment.vae, sitters, own, with_pose=condition == POSE_AND_SOUND, idle=idle)
    tracks: list[dict[str, list[float]]] = [{name: [] for name in READ} for _ in sitters]
    for _, frames in played:
        for track, seen in zip(tracks, frames, strict=True):
            reading = equipment.reader.read(seen)
            for name in READ:
                track[name] += [round(value, 4) for value in getattr(reading, name).tolist()]
    return tracks


# ---- closures ----


def shut_below(openings: Mapping[int, Tensor], closures: Mapping[int, Sequence[int]]) -> float | None:
    """The opening that SHUT_SHARE of the true closures stay within; keys are sitters. None where nobody says an m, b or p."""
    true = [_at(openings[seed], closures[seed]) for seed in openings if closures[seed]]
    return torch.cat(true).quantile(SHUT_SHARE).item() if true else None


def share_shut(opening: Tensor, closures: Sequence[int], threshold: float, shift: int = 0) -> float | None:
    """The share of closures at which the mouth is shut; `shift` frames later for the control. None where nothing is left to ask."""
    asked = [frame + shift for frame in closures if 0 <= frame + shift < len(opening)]
    return (_at(opening, asked) <= threshold).double().mean().item() if asked else None


def _at(opening: Tensor, frames: Sequence[int]) -> Tensor:
    """The least opening within SLACK of each frame."""
    return torch.stack([opening[max(0, frame - SLACK) : frame + SLACK + 1].min() for frame in frames])


# ---- pause ----


@dataclass(frozen=True, kw_only=True)
class Pause:
    """One sitter's pause."""

    opening_share: float  # of the mean opening while it speaks
    widest: float  # the largest opening in the pause; 1 is as far as a mouth opens
    blinks_per_minute: float  # in the pause
    head_share: float  # deviation of yaw, pitch and roll in the pause, as a share of that while it speaks


def pause_of(tracks: Mapping[str, Tensor], silent: tuple[float, float], fps: float) -> Pause:
    """`silent`: from when to when nothing is said, in seconds."""
    first, last = round((silent[0] + EDGE_SECONDS) * fps), round((silent[1] - EDGE_SECONDS) * fps)
    opening = tracks["mouth_open"]
    inside, count = slice(first, last), len(opening)
    speaks = torch.ones(count, dtype=torch.bool)
    speaks[round(silent[0] * fps) : round(silent[1] * fps)] = False
    shut = (tracks["blink"][inside] > BLINK).int()
    blinks = int((shut.diff() > 0).sum() + shut[:1].sum())

    def deviation(where):
        return fmean(tracks[name][where].double().std().item() for name in ("yaw", "pitch", "roll"))

    return Pause(
        opening_share=opening[inside].mean().item() / max(1e-6, opening[speaks].mean().item()),
        widest=opening[inside].max().item(),
        blinks_per_minute=60 * blinks / ((last - first) / fps),
        head_share=deviation(inside) / max(1e-9, deviation(speaks)),
    )


# ---- voice ----


def voiced(opening: Tensor, fps: float) -> Tensor:
    """Where somebody speaks: [f] bool. `opening` is what the sound suggests."""
    reach = round(VOICED_SECONDS * fps)
    padded = torch.nn.functional.pad(opening[None], (reach, reach))
    return padded.unfold(1, 2 * reach + 1, 1).amax(-1)[0] > VOICED


def r_inside(read: Tensor, opening: Tensor, where: Tensor, fps: float) -> tuple[float, float]:
    """(r, the larger of the two controls) inside `where`, all [f]."""
    common = min(len(read), len(opening))
    read, opening, where = read[:common], opening[:common], where[:common]
    reach = round(CONTROL_SECONDS * fps)
    late = correlation(read[reach:][where[:-reach]], opening[:-reach][where[:-reach]])
    early = correlation(read[:-reach][where[reach:]], opening[reach:][where[reach:]])
    return correlation(read[where], opening[where]), max(late, early, key=abs)


def joined(recordings: Sequence[np.ndarray], sample_rate: int, gap_seconds: float = 0.5) -> np.ndarray:
    """Recordings one after the other with silence between and around them."""
    gap = np.zeros(round(gap_seconds * sample_rate), np.float32)
    return np.concatenate([gap, *(part for recording in recordings for part in (recording.astype(np.float32), gap))])
