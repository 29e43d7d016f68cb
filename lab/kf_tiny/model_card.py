"""The model card of kf-tiny: recipe, data and measured numbers, written from what the run and the measurement left. Nothing by hand."""

import json
from pathlib import Path

from kf_core.checkpoints.decoder_card import DecoderCard
from kf_core.checkpoints.decoder_only import SMALL_FILE
from kf_core.checkpoints.read import read_header
from kf_core.models.card import CARD_KEY, ModelCard

from .audio_gain import KEY
from .targets import goals_table, read_protocols
from .vae import HEADER_KEY

VERSION = "0.6"

# what to show of each condition, in this order
SHOWN = (
    "PSNR",
    "PSNR of the mouth",
    "PSNR, first fifth",
    "PSNR, last fifth",
    "mouth r",
    "mouth r, shifted 0.5 s",
    "identity cosine",
    "identity cosine, lowest",
    "palette error",
    "temporal flickering",
    "motion",
    "seam ratio",
    "seam ratio over the codec's",
    "colour drift per minute",
    "colour, last fifth from truth",
    "sharpness against truth",
)


def write_card(path: Path, generator_file: Path, vae_file: Path, measures: dict, run: Path) -> None:
    """Write the card as Markdown; `measures` is what `measure.measure` returned, `run` has what the protocols left, if they were run."""
    generator, vae = (read_header(file).metadata for file in (generator_file, vae_file))
    card = ModelCard.from_json(generator[CARD_KEY])
    trained, codec = json.loads(generator["training"]), json.loads(vae[HEADER_KEY])
    small = vae_file.with_name(SMALL_FILE)
    about_small = DecoderCard.of(read_header(small).metadata) if small.exists() else None
    goals = goals_table(codec, measures, read_protocols(run))
    lines = (*_about(card, trained, codec, about_small), *_numbers(measures), *goals, *_limits())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _about(card: ModelCard, trained: dict, codec: dict, small: DecoderCard | None) -> list[str]:
    return [
        f"# kf-tiny, version {VERSION}",
        "",
        f"A causal Wan 2.1 generator at small dims (dim {card.dim}, {card.layers} layers, {card.heads} heads, {card.in_channels} input "
        f"channels) and a Wan 2.1 autoencoder of dim 16, for cartoon portraits of {card.width} x {card.height} pixels at {card.fps:g} fps. "
        "Licence: Apache-2.0.",
        "",
        "![Held-out faces: truth, driven by pose and sound, driven by sound alone](../../lab/docs/kf-tiny-subjects.png)",
        "",
        "## How it was made",
        "",
        "Everything comes from this repository, `lab/kf_tiny`: no photograph, no recorded voice, no other model. These weights are a "
        "chain of runs, each begun with the weights of the one before; "
        f"`python -m lab kf-tiny`{_without(trained)} makes new ones of the kind.",
        "",
        "| part | data | training |",
        "|---|---|---|",
        f"| autoencoder | procedural cartoon portraits, babbling | {_grown(codec)}{codec['steps']} steps, {codec['minutes']} minutes |",
        *_small(small),
        *_ear(trained.get("ear")),
        f"| student | {trained['training_clips']} clips of 3 to 5 s: a new face each, espeak-ng's voices with visemes from its phoneme "
        f"events, pose in half of the samples | {_grown(trained)}flow matching on [anchor, past, current] in one masked pass, then own "
        f"4-step rollouts{_matched(trained)}; {trained['steps']} steps in all{_louder(trained)} |",
        *_teacher(trained),
        "",
        f"Weights of commit `{trained['commit']}`; what happened on the way is in [experiments.md](../../lab/docs/experiments.md). "
        "Faces, voices and sentences that are measured below were never trained on; the strength of the voice was chosen on faces 2000 to "
        "2007, on which closures, pauses, recordings and idle life are measured.",
        "",
    ]


def _small(about: DecoderCard | None) -> list[str]:
    if about is None:
        return []
    row = f"| small decoder, half the width (`--decoder small`) | the same portraits | {about.steps} steps, {about.minutes:g} minutes; "
    return [row + f"{about.psnr:.1f} dB on held-out clips, {about.psnr_mouth:.1f} at the mouth |"]


def _ear(heard: dict | None) -> list[str]:
    if heard is None:
        return []
    data = f"{heard['speech_minutes']:g} minutes of espeak-ng's voices, no frames"
    r = f"r of the opening {heard['open']:.2f} (worst {heard['lowest']:.2f}), the width {heard['wide']:.2f}, the bite {heard['bite']:.2f}"
    return [f"| ear, a part of the student | {data} | {heard['minutes']:g} minutes; for voices that it never heard {r} |"]


def _grown(about: dict) -> str:
    return f"begun with the weights of {about['grown_from']}, " if about.get("grown_from") else ""


def _matched(trained: dict) -> str:
    return ", with pose against the truth, without one matched to the teacher" if trained.get("teacher_steps") else " against the truth"


def _without(trained: dict) -> str:
    return "" if trained.get("teacher_steps") else ", its stages one by one without `teacher`,"


def _louder(trained: dict) -> str:
    return f"; the voice then taken {trained[KEY]:g} times as strong" if KEY in trained else ""


def _teacher(trained: dict) -> list[str]:
    steps = trained.get("teacher_steps")
    row = f"| teacher (not bundled) | the same clips | begun like the student; flow matching on whole clips; {steps} steps |"
    return [row] if steps else []


def _numbers(measures: dict) -> list[str]:
    conditions, about = measures["conditions"], measures["about"]
    names = list(conditions)
    sitters = len(conditions[names[0]]["each"])
    lines = [
        "## What was measured",
        "",
        f"{sitters} held-out faces with held-out voices, {measures['seconds']:g} s each, and one of {measures['long_seconds']:g} s "
        "(`long`). `codec` is the truth through the autoencoder and back, the best that any generator on it could do. Means; the "
        "mouth's worst face in brackets.",
        "",
        "| | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for row in SHOWN:
        cells = []
        for name in names:
            mean = conditions[name]["mean"].get(row)
            worst = f" ({min(one[row] for one in conditions[name]['each']):.2f})" if row == "mouth r" else ""
            cells.append("" if mean is None else f"{mean:.3g}{worst}")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return [*lines, "", f"`python -m lab measures`, commit {about['code']}, {about['date']}, {about['machine']}", ""]


def _limits() -> list[str]:
    return [
        "## What it is not",
        "",
        "- It draws cartoons. A photograph becomes a cartoon, and not a good one.",
        "- It was trained for hours on a CPU where the paper's model had a cluster: it shows that the whole path works, and at what scale.",
        "- The reader that measures mouth and identity was trained on the same kind of drawings. Identity is easy among them: hair and",
        "  background give it away, so read the cosine beside the palette error.",
    ]
