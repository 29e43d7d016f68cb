"""Seconds per chunk as a stream goes on: ours against ComfyUI's sampler and the public Self-Forcing pipeline, in one run.

    python -m tests.benchmarks.against_peers [--comfyui FOLDER] [--self-forcing FOLDER] [--at 30 300 3000] [--repeats 3]

Same weights, sizes, steps and float32 for all; at equal attention span (every frame remembered; a window of 6) and at each one's own.
Every repeat measures all in turn, so that what else the machine does meets all of them. Whether ours stays flat is measured more
finely: streams at all frames run side by side and take turns, a chunk each (`--flat-chunks`). A run at a late frame begins there, with
random numbers as its past; its first chunk is not counted. Prints Markdown. Correctness stands beside the times: from the same noise, all
that see the same frames draw the same latents. `--clock cpu` counts the process's own time: for trying it on a busy machine.
Runs in an environment with ComfyUI's requirements and diffusers, on Linux.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from kf_core.metrics.speed import machine
from kf_core.models.attention import sdpa
from kf_core.models.card import ModelCard, TextSpec
from kf_core.models.wan import WanModel
from kf_core.schedule import warped
from kf_core.settings import Ahead, RolloutSettings

from .peers import CHUNK, WIDTH, ComfyUI, Run, SelfForcing, Setting, our_chunks, ours

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
ROPE_TABLE = 1024  # Self-Forcing's: latent frames
KNOT_FORCING = RolloutSettings(schedule=warped(), knot="blend", anchor=Ahead(20, 20))
WINDOW = RolloutSettings(schedule=warped(), knot=None, fuse=False, anchor=None, window=6)
COMPARED = 4  # chunks drawn from the same noise

EVERY, SIX, OWN = "every frame remembered", "window of 6 frames, nothing pinned", "Knot Forcing: window of 6, anchor, knot"


class Contestant:
    """Who runs, under which attention span, and how far it comes."""

    def __init__(self, name: str, span: str, run: Callable[[int, int], Run], until: int) -> None:
        self.name, self.span, self.run, self.until = name, span, run, until
        self.seconds: dict[int, list[float]] = {}  # frame -> the median chunk of each repeat


def contestants(setting: Setting, chosen: argparse.Namespace) -> list[Contestant]:
    def growing(start, chunks):
        return replace(WINDOW, window=None, max_frames=start + CHUNK * chunks)

    spans = {EVERY: growing, SIX: lambda *_: WINDOW, OWN: lambda *_: KNOT_FORCING}
    found = []
    if chosen.comfyui:
        found.append(Contestant("ComfyUI `ar_video`", EVERY, ComfyUI(setting, chosen.comfyui), chosen.growing_until))
    if chosen.self_forcing:
        for span, window, until in ((EVERY, None, min(ROPE_TABLE, chosen.growing_until)), (SIX, 6, ROPE_TABLE)):
            found.append(Contestant("Self-Forcing pipeline", span, SelfForcing(setting, chosen.self_forcing, window), until))
    for span, settings in spans.items():
        for name, hot in (("ours, plain forward", False), ("ours, optimized forward", True)):

            def run(start, chunks, hot=hot, settings=settings):
                return ours(setting, settings(start, chunks), start, chunks, hot=hot)

            found.append(Contestant(name, span, run, chosen.growing_until if span == EVERY else 10**9))
    return sorted(found, key=lambda one: list(spans).index(one.span))


def times(all_of_them: list[Contestant], chosen: argparse.Namespace) -> None:
    """Every repeat measures everyone at every frame, in turn."""
    for _ in range(chosen.repeats):
        for frame in chosen.at:
            start = (frame // CHUNK - 1) * CHUNK  # one chunk to warm up, the next begins at the frame
            for one in all_of_them:
                if frame + CHUNK * chosen.chunks <= one.until:
                    one.seconds.setdefault(frame, []).append(median(one.run(start, 1 + chosen.chunks).seconds[1:]))


def table(all_of_them: list[Contestant], at: list[int]) -> list[str]:
    """Markdown: everyone's seconds at each frame, and the ratio to those who see the same."""
    lines = ["| seconds per chunk, median (least to most) | " + " | ".join(f"at latent frame {frame}" for frame in at) + " |"]
    lines.append("|---|" + "---:|" * len(at))
    for span in dict.fromkeys(one.span for one in all_of_them):
        lines.append(f"| **{span}** |" + " |" * len(at))
        group = [one for one in all_of_them if one.span == span]
        for one in group:
            cells = []
            for frame in at:
                if frame not in one.seconds:
                    cells.append("-")
                    continue
                mine, peers = one.seconds[frame], [each for each in group if not each.name.startswith("ours") and frame in each.seconds]
                ratios = [median(each.seconds[frame]) / median(mine) for each in peers if one.name.startswith("ours")]
                beside = f"; {' and '.join(f'{ratio:.2f}' for ratio in ratios)} x" if ratios else ""
                cells.append(f"{median(mine):.3f} ({min(mine):.3f} to {max(mine):.3f}){beside}")
            lines.append(f"| {one.name} | " + " | ".join(cells) + " |")
    return [*lines, "", "A ratio is the peer's time over ours at the same span, in the order of the rows above."]


def flatness(setting: Setting, chosen: argparse.Namespace) -> None:
    """Streams at every frame side by side, in turn a chunk each: what a chunk takes late in a stream over what it takes early."""
    print(f"\n| ours at constant span, {chosen.flat_chunks} chunks, in turn | {' | '.join(f'at {frame}' for frame in chosen.at)} | ratio |")
    print("|---|" + "---:|" * (len(chosen.at) + 1))
    for span, settings in ((SIX, WINDOW), (OWN, KNOT_FORCING)):
        for name, hot in (("plain forward", False), ("optimized forward", True)):
            count = 1 + chosen.flat_chunks
            running = {frame: our_chunks(setting, settings, (frame // CHUNK - 1) * CHUNK, count, hot=hot) for frame in chosen.at}
            seconds: dict[int, list[float]] = {frame: [] for frame in chosen.at}
            for turn in range(count):
                for frame in chosen.at[turn % len(chosen.at) :] + chosen.at[: turn % len(chosen.at)]:
                    seconds[frame].append(next(running[frame])[0])
            settled = [each[1:] for each in seconds.values()]
            cells = [f"{median(each):.4f} ({min(each):.4f} to {max(each):.4f})" for each in settled]
            middle, least = [median(each) for each in settled], [min(each) for each in settled]
            ratio = f"{max(middle) / min(middle):.3f} of medians, {max(least) / min(least):.3f} of minima"
            print(f"| {name}, {span} | {' | '.join(cells)} | {ratio} |", flush=True)


def agreement(all_of_them: list[Contestant]) -> list[str]:
    """Markdown: from the same noise, the largest difference between two who see the same frames, over the largest value."""
    lines = [f"Latents of the first {COMPARED} chunks from the same noise, largest difference over largest value:", ""]
    for span in dict.fromkeys(one.span for one in all_of_them):
        group = [one for one in all_of_them if one.span == span]
        drawn = {one.name: one.run(0, COMPARED).latents for one in group}
        reference = drawn["ours, plain forward"]
        for name, latents in drawn.items():
            if latents is not reference:
                distance = float((latents.to(reference) - reference).abs().max() / reference.abs().max())
                lines.append(f"- {span}: {name} from ours, plain forward: {distance:.1e}")
    return lines


def attention_share(setting: Setting, at: list[int]) -> None:
    """How much of a chunk is self-attention and cross-attention, by ours with PyTorch's attention."""
    print()
    growing = replace(WINDOW, window=None, max_frames=max(at) + 2 * CHUNK)
    for span, settings, frames in ((EVERY, growing, at), (OWN, KNOT_FORCING, at[:1])):
        for frame in frames:
            spent = [0.0]

            def timed(q, k, v, mask=None, spent=spent):
                before = setting.clock()
                out = sdpa(q, k, v, mask)
                spent[0] += setting.clock() - before
                return out

            run = ours(setting, settings, (frame // CHUNK) * CHUNK, 1, hot=False, attention=timed)
            print(f"Attention is {spent[0] / run.seconds[0]:.0%} of a chunk at frame {frame}, {span} (plain forward).")


def limits(setting: Setting, all_of_them: list[Contestant]) -> None:
    """Where a peer stops, by making it go on."""
    one = next((one for one in all_of_them if one.name.startswith("Self-Forcing") and one.span == SIX), None)
    if one is not None:
        start = ROPE_TABLE // CHUNK * CHUNK
        try:
            one.run(start, 1)
            print(f"\nThe Self-Forcing pipeline went on at latent frame {start}.")
        except RuntimeError as problem:
            print(
                f"\nThe Self-Forcing pipeline stops at latent frame {start}: its table of positions has {ROPE_TABLE} "
                f"({str(problem).splitlines()[0]}). As published its buffer of 32,760 tokens is full after 21 frames of 832 x 480. "
                f"ComfyUI's sampler keeps every frame: its buffers are made for the length asked for, and each chunk takes longer."
            )


def memory(chosen: argparse.Namespace, names: list[str], frame: int) -> None:
    """Peak memory of a process that draws two chunks at the frame, one process for each contestant."""
    print(f"\n| whole process, peak MiB, two chunks at latent frame {frame} | |\n|---|---:|")
    for name in names:
        command = [sys.executable, "-m", "tests.benchmarks.against_peers", *sys.argv[1:], "--memory-of", name, "--at", str(frame)]
        done = subprocess.run(command, capture_output=True, text=True)
        print(f"| {name.replace(' | ', ', ')} | {done.stdout.strip().splitlines()[-1] if done.returncode == 0 else 'failed'} |", flush=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = {"--comfyui": Path.home() / "comfy" / "ComfyUI", "--self-forcing": Path.home() / "refs" / "Self-Forcing"}
    for name, folder in known.items():
        parser.add_argument(name, type=Path, default=folder if folder.exists() else None, metavar="FOLDER")
    parser.add_argument("--at", type=int, nargs="+", default=[30, 300, 3000], help="latent frames at which to compare")
    parser.add_argument("--growing-until", type=int, default=400, help="who remembers every frame is measured no later than here")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=2, help="counted chunks of each measurement")
    parser.add_argument("--flat-chunks", type=int, default=30, help="chunks at each frame for the comparison over time; 0: none")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=[16, 16], help="latent height and width; 16 16 are 64 tokens a frame")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory-of", metavar="NAME", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    card = ModelCard(
        name="benchmark", dim=chosen.dim, ffn_dim=4 * chosen.dim, layers=chosen.layers, heads=chosen.dim // 128, in_channels=16,
        text=TextSpec(kind="umt5", width=WIDTH), rollout=KNOT_FORCING,
    )  # fmt: skip
    torch.manual_seed(0)
    setting = Setting(card, WanModel(card).eval().requires_grad_(False), tuple(chosen.size), CLOCKS[chosen.clock])
    if chosen.memory_of:
        name, span = chosen.memory_of.split(" | ")
        if name.startswith("ours"):  # without what the peers import
            chosen.comfyui = chosen.self_forcing = None
        one = next(one for one in contestants(setting, chosen) if (one.name, one.span) == (name, span))
        one.run(chosen.at[0] // CHUNK * CHUNK, 2)
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(f"{int(peak.split()[1]) / 1024:.0f}")  # the system's own count; getrusage's would include the process that started this one
        return
    print(f"{machine()}\n")
    print(
        f"dim {card.dim}, {card.layers} layers, {setting.tokens} tokens a frame, 512 words, float32, 4 steps and a clean pass, chunks of "
        f"{CHUNK}; {chosen.repeats} repeats, {chosen.chunks} chunks each, {chosen.clock} clock."
    )
    all_of_them = contestants(setting, chosen)
    times(all_of_them, chosen)
    print("\n" + "\n".join(table(all_of_them, chosen.at)))
    if chosen.flat_chunks:
        flatness(setting, chosen)
    print("\n" + "\n".join(agreement(all_of_them)))
    attention_share(setting, [frame for frame in chosen.at if frame < chosen.growing_until])
    limits(setting, all_of_them)
    if not chosen.no_memory:
        late = max(frame for frame in chosen.at if frame < chosen.growing_until)
        memory(chosen, [f"{one.name} | {one.span}" for one in all_of_them], late)


if __name__ == "__main__":
    main()
