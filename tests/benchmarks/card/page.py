"""A run of the benchmark as Markdown: each number against the one that is asked for, then all of them.

What is asked for is asked of one H100 or H200 at the published sizes; of another scale the numbers stand without an answer.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .parts import FILM, FIRST, MEMORY, PEER, PROFILE, fastest, said, square, wide

MIB = 2**20


@dataclass(frozen=True)
class Asked:
    """One number that is asked for. `found`: out of the parts; KeyError where the part was not measured."""

    what: str
    bound: float
    is_least: bool  # or the most
    found: Callable[[dict], float]
    unit: str = ""
    digits: int = 1

    def row(self, parts: dict, is_answered: bool) -> str:
        wanted = f"{'≥' if self.is_least else '≤'} {self.bound:g}{self.unit}"
        try:
            found = self.found(parts)
        except KeyError:
            return f"| {self.what} | {wanted} | not measured | |"
        answer = "" if not is_answered else "yes" if (found >= self.bound if self.is_least else found <= self.bound) else "**no**"
        return f"| {self.what} | {wanted} | {found:.{self.digits}f}{self.unit} | {answer} |"


ASKED = (
    Asked("generator, wide: frames a second", 40, True, lambda parts: parts[wide(fastest(parts))]["denoised_per_second"]),
    Asked("to an MP4 by the tiny decoder, sustained: frames a second", 35, True, lambda parts: parts[FILM]["frames_per_second"]),
    Asked("first frame of a warm model", 0.3, False, lambda parts: parts[FIRST]["median"], " s", 3),
    Asked("generator, square: frames a second", 75, True, lambda parts: parts[square("fastest")]["denoised_per_second"]),
    Asked("time of the public Self-Forcing pipeline over ours", 2, True, lambda parts: parts[PEER]["own_span"], " x", 2),
    Asked("chunk after which memory last changed", 3, False, lambda parts: parts[MEMORY]["last_change"], "", 0),
)


def page(run: dict) -> str:
    """The whole run. `run`: as `record.py` keeps it."""
    parts, is_card = run["parts"], run["scale"] == "card"
    lines = [f"{run['date']}, commit {run['commit']}, {run['machine']}.", "", "```", run["command"], "```", ""]
    if not is_card:
        lines += ["At tiny sizes: this shows that every part runs, and nothing of a card's speed.", ""]
    lines += ["| asked of one H100 or H200 | | found | |", "|---|---:|---:|---|"]
    lines += [asked.row(parts, is_card) for asked in ASKED]
    sections = (_drawing, _film, _first, _peer, _memory, _profile)
    for section in sections:
        try:
            lines += ["", *section(parts)]
        except KeyError:
            lines.pop()  # not measured
    for name, why in run["failed"].items():
        lines += ["", f"**{name} failed**: {why.strip().splitlines()[-1]}"]
    lines += [f"\n**{name} was left out**: {why}" for name, why in run["left_out"].items()]
    return "\n".join(lines) + "\n"


def _drawing(parts: dict) -> list[str]:
    rows = [found for name, found in parts.items() if name.startswith(("wide", "square"))]
    if not rows:
        raise KeyError
    lines = [
        "| drawn by | size | frames a second | ms a chunk, median (least to most) | of the device's limit | ms to decode "
        "| off the plain forward: largest, root mean square | peak MiB |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        spread = f"{1000 * row['denoising']:.0f} ({1000 * row['least']:.0f} to {1000 * row['most']:.0f})"
        off, peak = row["difference"], "-" if row["peak"] is None else f"{row['peak'] / MIB:.0f}"
        lines.append(
            f"| {said(tuple(row['accelerators']))} | {_size(row)} | {row['denoised_per_second']:.1f} | {spread} | {row['of_limit']:.0%} "
            f"| {1000 * row['decoding']:.0f} | {off['largest']:.1e}, {off['root_mean_square']:.1e} | {peak} |"
        )
    return lines


def _film(parts: dict) -> list[str]:
    film = parts[FILM]
    peak = "" if film["peak"] is None else f" At most {film['peak'] / MIB:.0f} MiB of tensors."
    return [
        f"To an MP4 ({_way(film)}, {_size(film)}, decoded by the tiny decoder and written beside the drawing): {film['chunks']} chunks, "
        f"{film['frames']} of {film['wanted']} frames in the file ({film['bytes'] / 1e6:.1f} MB), "
        f"{film['frames_per_second']:.1f} a second without the first chunk, {film['last_tenth']:.1f} in the last tenth; "
        f"{film['waiting']} chunk at most was drawn and not yet made into frames.{peak}"
    ]


def _first(parts: dict) -> list[str]:
    first = parts[FIRST]
    times = ", ".join(f"{seconds:.3f}" for seconds in first["seconds"])
    return [
        f"First frame ({_way(first)}, {_size(first)}), of {len(first['seconds'])} new streams of a warm model: {times} s. "
        f"The portrait is encoded before; its own pass and the keys of the prompt are in it."
    ]


def _peer(parts: dict) -> list[str]:
    peer = parts[PEER]
    spans = "; ".join(f"{span}: {ratio:.2f} x" for span, ratio in peer["equal_span"].items())
    return [
        *peer["table"],
        "",
        f"Ours as fast as it was measured ({_way(peer)}, Knot Forcing, settled): {peer['ours_fastest']:.3f} s a chunk, so the public "
        f"pipeline at its own span takes {peer['own_span']:.2f} x as long. At equal span, the optimized forward: {spans}.",
        "The pipeline's FlashAttention is replaced by PyTorch's attention, which ours calls, too.",
        "",
        *peer["agreement"],
    ]


def _memory(parts: dict) -> list[str]:
    memory = parts[MEMORY]
    held, what = memory["held"], "weights included" if memory["weights_included"] else "without the weights"
    first = ", ".join(f"{size:,}" for size in held[:4])
    return [
        f"Bytes held ({_way(memory)}, {what}) after chunks 1 to 4: {first}; after chunk {len(held)}: {held[-1]:,}. "
        f"They last changed after chunk {memory['last_change']}."
    ]


def _profile(parts: dict) -> list[str]:
    profile = parts[PROFILE]
    whole = 1000 * profile["seconds"] / profile["chunks"]
    return [f"A chunk under PyTorch's profiler ({_way(profile)}, drawn and decoded in turn) takes {whole:.0f} ms:", "", *profile["table"]]


def _way(part: dict) -> str:
    return said(tuple(part["accelerators"]))


def _size(part: dict) -> str:
    return "x".join(map(str, part["size"]))
