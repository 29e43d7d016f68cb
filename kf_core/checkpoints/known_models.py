"""The table of known generators, for files that carry no card: nothing in the tensors tells chunk length, window or schedule.

`rollout` of a card is how its authors run it, wherever this pack does that; its note says where it does not. Constants are those of the
authors' configurations at the commits named here; each card's `source` says in which file and line.

    Self-Forcing 33593df, Causal-Forcing 1fc7bbc, LongLive v1.0 e52d9ef, LiveTalk 53b2c22, RollingForcing a1477d0,
    AvatarForcing 63b73e6, CausVid ca21150, Krea realtime-video acf4b7b
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..models.card import AudioSpec, ModelCard, PoseSpec, TextSpec
from ..schedule import few_steps, unwarped, warped
from ..settings import Ahead, RolloutSettings
from .key_maps import ENTRIES

EXPRESSION = ("smile", "brows", "gaze_x", "gaze_y", "blink")
WAN_1_3B = dict(dim=1536, ffn_dim=8960, layers=30, heads=12)
WAN_14B = dict(dim=5120, ffn_dim=13824, layers=40, heads=40)
WAV2VEC2 = AudioSpec(kind="wav2vec2", width=14 * 768, code=32, first_layer=2, last_layer=15)
NON_COMMERCIAL = "CC BY-NC-SA 4.0"
OTHER_LOOP = (
    "Its authors denoise several chunks at once, at staggered noise; here it runs under Knot Forcing, for which it was not trained."
)
RECORDED = "A rollout on random weights equals a recording of the authors' code within 1e-5."
COMPARED = "A rollout on random weights equals the authors' code within 1e-5 (tests/reference/compare.py)."
EULER = "One clip on random weights, guided, equals diffusers' WanPipeline with its Euler scheduler within 1e-5."
LOADS = "Loads strictly, by the names of its authors' loader; its rollout was not compared with its authors'."
# What Wan 2.1's authors lead away from where the user says nothing (wan/configs/shared_config.py, `sample_neg_prompt`).
WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
# Everything is remembered. 21 is what the authors make; `max_frames` grows with the video that is asked for.
REMEMBERS_ALL = RolloutSettings(knot=None, fuse=False, anchor=None, window=None, max_frames=21, schedule=warped())


def kf_tiny(size: int = 128) -> ModelCard:
    """The bundled model: the same code at small dims, trained by this project on cartoon portraits it draws itself."""
    return ModelCard(
        name="kf-tiny",
        dim=256,
        ffn_dim=1024,
        layers=6,
        heads=2,
        in_channels=33,
        text=TextSpec(kind="none", width=64, tokens=1),
        audio=AudioSpec(kind="log-mel", width=256, ear=(256, 128, 32), code=64, first_layer=1, last_layer=5),
        pose=PoseSpec(),
        expression=EXPRESSION,
        motion_strength=True,
        rollout=RolloutSettings(schedule=warped(), anchor=Ahead(20, 20), first_frame="tie"),
        width=size,
        height=size,
        note="kf-tiny draws cartoons: it was trained on procedural cartoon portraits and is not meant for photographs.",
        source="bundled; made by `python -m lab kf-tiny`",
    )


def student(name: str, rollout: RolloutSettings, source: str, **more) -> ModelCard:
    """A few-step causal student of Wan2.1-T2V-1.3B."""
    return ModelCard(
        name=name, **{**WAN_1_3B, "in_channels": 16, "text": TextSpec(kind="umt5"), "rollout": rollout, "source": source, **more}
    )


def self_forcing() -> ModelCard:
    """Self-Forcing DMD, as its authors run it: every frame is remembered."""
    source = "gdhe17/Self-Forcing, checkpoints/self_forcing_dmd.pt; configs/self_forcing_dmd.yaml:7-15,48; README.md: --use_ema"
    return student("Self-Forcing 1.3B", REMEMBERS_ALL, source, verified=RECORDED)


def causal_forcing_chunkwise() -> ModelCard:
    source = (
        "zhuhz22/Causal-Forcing, chunkwise/causal_forcing.pt; configs/causal_forcing_dmd_chunkwise.yaml:7-15,47; README.md: no --use_ema"
    )
    return student("Causal-Forcing 1.3B", REMEMBERS_ALL, source, verified=COMPARED)


def causal_forcing_framewise() -> ModelCard:
    """One frame at a time."""
    source = "zhuhz22/Causal-Forcing, framewise/causal_forcing.pt; configs/causal_forcing_dmd_framewise.yaml:7-15,47; README.md: --use_ema"
    return student("Causal-Forcing 1.3B framewise", replace(REMEMBERS_ALL, chunk=1), source, verified=COMPARED)


def causal_forcing_few_steps(steps: int) -> ModelCard:
    """Causal-Forcing++: one frame at a time in two steps or one; the first frame takes four."""
    rollout = replace(REMEMBERS_ALL, chunk=1, schedule=warped((1000, 500)[:steps]), first_schedule=warped())
    source = (
        f"zhuhz22/Causal-Forcing, causal-forcing++/framewise-{steps}step.pt; configs/causal_forcing_dmd_framewise_{steps}step.yaml:7-14"
    )
    plural = "s" if steps > 1 else ""
    return student(f"Causal-Forcing++ 1.3B, {steps} step{plural}", rollout, f"{source}; README.md: --use_ema", verified=COMPARED)


def longlive() -> ModelCard:
    """LongLive 1.0: 12 frames, the first 3 of them pinned; positions grow for ever (it was trained up to 240 frames)."""
    return student(
        "LongLive 1.0 1.3B",
        RolloutSettings(knot=None, fuse=False, anchor=None, window=9, pinned=3, schedule=warped()),
        "Efficient-Large-Model/LongLive-1.3B, models/longlive_base.pt and models/lora.pt; configs/longlive_inference.yaml:1-13,27-33",
        verified=COMPARED,
    )


def longlive_infinity() -> ModelCard:
    """LongLive 1.0's endless mode: the pinned frames stand just before the window, so that no position is ever far away."""
    own = longlive()
    return replace(
        own,
        name="LongLive 1.0 1.3B, endless",
        rollout=replace(own.rollout, pinned_place="in front"),
        source=own.source.replace("longlive_inference.yaml:1-13,27-33", "longlive_inference_infinity.yaml:1-14"),
    )


def livetalk() -> ModelCard:
    """LiveTalk 1.3B, as its authors run it: the first 9 frames pinned, 6 in the window, frame 0 is the portrait."""
    schedule = ((1.0, 1000.0), (0.9375, 936.0), (5 / 6, 832.0), (0.625, 624.0))  # t was rounded to bf16 in training
    return ModelCard(
        name="LiveTalk 1.3B",
        **WAN_1_3B,
        in_channels=33,
        image_channels="portrait",
        text=TextSpec(kind="umt5"),
        audio=WAV2VEC2,
        rollout=RolloutSettings(knot=None, fuse=False, anchor=None, window=6, pinned=9, first_frame="pin", schedule=schedule),
        width=512,
        height=512,
        licence="README: Apache-2.0; LICENSE file: CC BY-NC-SA 4.0",
        restricted="LiveTalk's README says Apache-2.0, its LICENSE file CC BY-NC-SA 4.0 (non-commercial): ask its authors before "
        "commercial use.",
        source="GAIR/LiveTalk-1.3B-V0.1, model.safetensors; configs/causal_inference.yaml:17-28; scripts/inference_example.py:44,55,87",
        verified=f"{RECORDED} {COMPARED}",
    )


def rolling_forcing() -> ModelCard:
    return ours(
        student(
            "RollingForcing 1.3B",
            replace(REMEMBERS_ALL, schedule=warped((1000, 800, 600, 400, 200))),
            "TencentARC/RollingForcing, checkpoints/rolling_forcing_dmd.pt; configs/rolling_forcing_dmd.yaml:7-16; README.md: --use_ema",
            licence="model card: MIT; LICENSE file: academic use only",
            restricted="RollingForcing's model card says MIT, its LICENSE file allows academic purposes only (line 15): ask its authors "
            "before any other use.",
            note=OTHER_LOOP,
            verified=LOADS,
        )
    )


def avatar_forcing() -> ModelCard:
    """AvatarForcing 1.3B: 33 channels and sound as LiveTalk's; one frame, then four at a time, at 25 frames a second."""
    card = replace(
        livetalk(),
        name="AvatarForcing 1.3B",
        fps=25,
        width=832,
        height=480,
        rollout=replace(REMEMBERS_ALL, chunk=4, first_chunk=1, first_frame="pin", schedule=warped((1000, 800, 400, 200))),
        licence="README: Apache-2.0; LICENSE file: academic use only",
        restricted="AvatarForcing's README says Apache-2.0, its LICENSE file allows academic purposes only.",
        note=OTHER_LOOP,
        source="lycui/AvatarForcing, model.pt; configs/avatarforcing.yaml:3-18,52-62; configs/default_config.yaml:1",
        verified=LOADS,
    )
    return ours(card)


def causvid() -> ModelCard:
    return ours(
        student(
            "CausVid 1.3B",
            replace(REMEMBERS_ALL, schedule=unwarped((1000.0, 757.0, 522.0), shift=8.0)),
            "tianweiy/CausVid, autoregressive_checkpoint/model.pt; configs/wan_causal_dmd.yaml:14-20,52",
            licence=f"{NON_COMMERCIAL}; model card: CC BY-NC 4.0",
            restricted=f"CausVid is licensed under {NON_COMMERCIAL}: not for commercial use.",
            note="Its authors' own loop is not here; it runs under Knot Forcing, for which it was not trained.",
            verified=LOADS,
        )
    )


def krea() -> ModelCard:
    return ours(
        student(
            "Krea Realtime 14B",
            replace(REMEMBERS_ALL, schedule=unwarped((1000.0, 937.0, 833.0, 625.0), shift=5.0)),
            "krea/krea-realtime-video, krea-realtime-video-14b.safetensors; configs/self_forcing_server_14b.yaml:3-9,17",
            **WAN_14B,
            licence=f"model card: Apache-2.0; LICENSE file: {NON_COMMERCIAL}",
            restricted=f"Krea Realtime's model card says Apache-2.0, its code's LICENSE file {NON_COMMERCIAL} (non-commercial): ask its "
            "authors before commercial use.",
            note="Its authors' own loop is not here; it runs under Knot Forcing, for which it was not trained.",
            verified=LOADS,
        )
    )


def wan_t2v() -> ModelCard:
    """Wan 2.1 itself: neither causal nor few-step. Steps of Euler's kind, where its authors take UniPC's."""
    rollout = replace(REMEMBERS_ALL, schedule=few_steps(50, 8.0), shift=8.0, renoise=False, guidance=6.0)
    return ours(
        student(
            "Wan 2.1 T2V 1.3B",
            rollout,
            "Wan-AI/Wan2.1-T2V-1.3B, diffusion_pytorch_model.safetensors; README.md: --sample_shift 8 --sample_guide_scale 6; "
            "generate.py: 50 steps",
            negative_prompt=WAN_NEGATIVE,
            note="Plain Wan 2.1 was trained for whole clips. Here it draws chunk after chunk, for which it was not trained, in 50 steps "
            "with guidance: 102 passes a chunk. A causal student of it, such as Self-Forcing, was trained for it and takes 5.",
            verified=EULER,
        )
    )


def unknown_wan() -> ModelCard:
    """A causal Wan 2.1 of which nothing is known but its sizes; at those it is to be run as `ours`."""
    return student(
        "A Wan 2.1 generator",
        REMEMBERS_ALL,
        "",
        licence="not known",
        note="Nothing in this file says how it wants to be run: chunks of 3, 4 steps and Knot Forcing are assumed. "
        "If you know what it is, say so.",
    )


def ours(card: ModelCard) -> ModelCard:
    """A model that is only run under Knot Forcing: its own rollout is that."""
    return replace(card, rollout=card.under_knot_forcing())


@dataclass(frozen=True, kw_only=True)
class Known:
    """A row of the table: a checkpoint, and what tells it apart."""

    key: str  # its name where the user says what a file is
    card: Callable[[], ModelCard]
    names: tuple[str, ...]  # parts of its path, in lower case; the longest that is found decides
    entries: tuple[str, ...] = ENTRIES  # where its authors keep the weights they use, best first
    has_lora: bool = False  # its file holds a LoRA beside the weights
    lora_alpha: float | None = None  # None: as large as the rank
    wants_lora: str = ""  # the second file its authors always use
    is_assumed: bool = False  # taken where sizes fit and no name tells


RAW = ("generator", "generator_ema", "model", "state_dict")

KNOWN = (
    Known(key="self-forcing", card=self_forcing, names=("self_forcing", "self-forcing", "selfforcing"), is_assumed=True),
    Known(
        key="causal-forcing",
        card=causal_forcing_chunkwise,
        names=("chunkwise/causal_forcing", "causal_forcing", "causal-forcing"),
        entries=RAW,
    ),
    Known(
        key="causal-forcing-framewise",
        card=causal_forcing_framewise,
        names=("framewise/causal_forcing", "causal_forcing_framewise", "causal-forcing-framewise"),
    ),
    Known(key="causal-forcing-2step", card=lambda: causal_forcing_few_steps(2), names=("framewise-2step", "framewise_2step")),
    Known(key="causal-forcing-1step", card=lambda: causal_forcing_few_steps(1), names=("framewise-1step", "framewise_1step")),
    Known(key="longlive", card=longlive, names=("longlive",), entries=RAW, wants_lora="models/lora.pt"),
    Known(
        key="longlive-infinity",
        card=longlive_infinity,
        names=("longlive_infinity", "longlive-infinity"),
        entries=RAW,
        wants_lora="models/lora.pt",
    ),
    Known(key="livetalk", card=livetalk, names=("livetalk",), is_assumed=True),
    Known(key="rolling-forcing", card=rolling_forcing, names=("rolling_forcing", "rolling-forcing", "rollingforcing")),
    Known(
        key="avatar-forcing",
        card=avatar_forcing,
        names=("avatar_forcing", "avatar-forcing", "avatarforcing"),
        entries=RAW,
        has_lora=True,
        lora_alpha=64,
    ),
    Known(key="causvid", card=causvid, names=("autoregressive_checkpoint/model", "causvid"), entries=RAW),
    Known(key="krea", card=krea, names=("krea",)),
    Known(
        key="wan-t2v",
        card=wan_t2v,
        names=("wan2.1_t2v", "wan2.1-t2v", "wan2_1-t2v", "wan2_1_t2v", "wan21_t2v", "diffusion_pytorch_model"),
    ),
)
