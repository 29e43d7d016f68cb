"""Knot Forcing Sampler: everything that decides a stream, put together as a recipe. Nothing is denoised here.

Denoising begins where somebody wants to see it (`decoding.py`): a recipe passes the wire at once, may be used twice, and gives the same
frames each time. Every switch of the method is here; what stays on "the model's own" follows the model's card.
"""

from dataclasses import replace

from comfy_api.latest import io

from ..kf_core.conditioning.idle import NATURAL
from ..kf_core.errors import KnotForcingError
from ..kf_core.planning.presets import AUTO, CHOICES
from ..kf_core.sampling.guidance import require_text_encoder
from ..kf_core.schedule import few_steps
from ..kf_core.settings import STRONGEST_GUIDANCE, Ahead, AnchorRule, Behind, Fixed, RolloutSettings
from ..kf_core.timeline import latent_frames, pixel_frames_in
from .host import models, preview
from .host.encoders import require_audio_encoder
from .host.vace import require_vace
from .loaders import CATEGORY
from .wires import AnchorWire, Driver, DrivingWire, Recipe, StreamWire

OWN = "the model's own"
OWN_NUMBER = -1  # the same, where a number stands
KNOT_FORCING = "knot forcing"
ON, OFF = "on", "off"


class Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def frames(name: str, most: int, tooltip: str) -> io.Int.Input:
            return io.Int.Input(
                name, default=OWN_NUMBER, min=OWN_NUMBER, max=most, advanced=True, tooltip=f"{tooltip} {OWN_NUMBER}: {OWN}."
            )

        def choice(name: str, options: list[str], tooltip: str) -> io.Combo.Input:
            return io.Combo.Input(name, options=[OWN, *options], default=OWN, advanced=True, tooltip=tooltip)

        return io.Schema(
            node_id="KnotForcingSampler",
            display_name="Knot Forcing Sampler",
            category=CATEGORY,
            description="Puts the stream together: generator, portrait and what drives it. The frames are made by Streaming Decode.",
            search_aliases=["rollout", "causal", "autoregressive", "streaming video", "self forcing", "endless"],
            inputs=[
                io.Model.Input("model", tooltip="The generator from Load KF Model, with or without a LoRA."),
                AnchorWire.Input("anchor", tooltip="The portrait, from Encode Reference Anchor."),
                DrivingWire.Input("driving", optional=True, tooltip="What drives it: audio, pose, expression, script. None: it idles."),
                io.Float.Input(
                    "seconds",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.1,
                    tooltip="Length of the video in seconds. 0: exactly as long as the audio (or the pose frames). "
                    "Beyond the audio it is silent.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Another number, another performance. The same number gives the same frames.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=50,
                    tooltip="Denoising steps for each chunk: fewer is faster. 0: the model's own, usually 4.",
                ),
                frames("chunk", 64, "Latent frames denoised at a time, four frames each. Fewer: earlier to see, less coherent."),
                choice(
                    "knot",
                    ["inpaint", "blend", "pin", "none"],
                    "How the last frames of a chunk tie it to the next one: as known frames (inpaint), mixed into the noise (blend), "
                    "copied (pin), or not at all (none).",
                ),
                frames("knot_frames", 16, "Latent frames that two chunks share."),
                choice("fuse", [ON, OFF], "Average what two chunks made of the same frames (on), or take the second estimate (off)."),
                frames("window", 512, "Latent frames attended at a time, past and current. 0: all of them, memory grows with the length."),
                choice(
                    "anchor_rule",
                    ["ahead", "behind", "fixed", "none"],
                    "Where the portrait stands in time: running ahead of the frames being denoised (the method), behind them, fixed, "
                    "or nowhere: then nothing keeps the person the same.",
                ),
                frames("anchor_start", 4096, "ahead: where the portrait begins; behind: how far back; fixed: where. In latent frames."),
                frames("anchor_stride", 4096, "ahead: how far the portrait jumps when the video reaches it, in latent frames."),
                frames("pinned", 512, "First latent frames that are never forgotten (others call them a sink)."),
                choice(
                    "pinned_place", ["absolute", "in front"], "Where pinned frames stand in time: at their own place, or before the window."
                ),
                choice(
                    "first_frame",
                    ["free", "pin", "tie"],
                    "How the video begins. free: with whatever comes. tie: on the portrait, which the first chunk takes up as its knot. "
                    "pin: with the portrait itself.",
                ),
                io.Combo.Input(
                    "method",
                    options=[OWN, KNOT_FORCING],
                    default=OWN,
                    optional=True,
                    tooltip="How the stream is rolled out: as the model's authors do it, or by Knot Forcing (portrait ahead, window of 6, "
                    "knot). For kf-tiny both are the same. The switches above change what is chosen here.",
                ),
                io.Combo.Input(
                    "tune",
                    options=list(CHOICES),
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="What making the frames is fitted to. auto: this machine's memory; the node that makes them says what it "
                    "takes. 8gb to 24gb: a card of that memory; where the VAE has no room, a tiny decoder (taew2_1) in models/vae_approx "
                    "makes the frames, faster and softer. cpu: with kf-tiny, its small decoder does.",
                ),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=STRONGEST_GUIDANCE,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="How far to lead away from the negative prompt, for models that read prompts (others call it CFG). 0: the "
                    "model's own, which is 1 (off) for all that denoise in few steps and 6 for plain Wan 2.1. Above 1 it takes twice as "
                    "long.",
                ),
                io.Float.Input(
                    "idle",
                    default=NATURAL,
                    min=0.0,
                    max=NATURAL,
                    step=0.05,
                    optional=True,
                    tooltip="How much a face lives by itself where no pose is given: it blinks, glances aside and sways a little, other "
                    "for each seed. Script and expression go before it. For models that obey lids and head, such as kf-tiny.",
                ),
            ],
            outputs=[StreamWire.Output(display_name="stream", tooltip="To Streaming Decode, Next Segment or Stream to Latent.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        anchor,
        seconds: float,
        seed: int,
        driving: Driver | None = None,
        method: str = OWN,
        tune: str = AUTO,
        guidance: float = 0.0,
        idle: float = NATURAL,
        **switches,
    ) -> io.NodeOutput:
        driver, card = driving or Driver(), models.card_of(model)
        if "blink" in card.expression:
            driver = replace(driver, driving=replace(driver.driving, idle=idle))
        require_audio_encoder(card, driver)
        require_vace(card, driver)
        seconds = seconds or driver.driving.seconds
        if not seconds:
            raise KnotForcingError("How long should the video be? Connect Audio Conditioning to `driving`, or set `seconds`.")
        preview.set_status(cls.hidden.unique_id, remark_on_length(driver, seconds))
        own = card.under_knot_forcing() if method == KNOT_FORCING else card.rollout
        settings = chosen(own, latent_frames(pixel_frames_in(seconds, card.fps)), guidance=guidance, **switches)
        require_text_encoder(card, settings, has_text_encoder=driver.clip is not None)
        return io.NodeOutput(Recipe(model=model, anchor=anchor, driver=driver, settings=settings, seed=seed, seconds=seconds, tune=tune))


def remark_on_length(driver: Driver, seconds: float) -> str:
    """What the user may want to know about sources that are not as long as the video; empty where nothing is to be said."""
    pose, audio = driver.driving.pose, driver.driving.audio
    said = []
    if pose is not None and pose.seconds is not None and pose.seconds < seconds - 0.1:
        said.append(f"The pose lasts {pose.seconds:.1f} s of {seconds:.1f} s; after that the head is free.")
    if audio is not None and audio.seconds is not None and audio.seconds < seconds - 0.1:
        said.append(f"The audio lasts {audio.seconds:.1f} s of {seconds:.1f} s; after that it is silent.")
    return " ".join(said)


def chosen(
    own: RolloutSettings,
    length: int,
    *,
    steps: int,
    chunk: int,
    knot: str,
    knot_frames: int,
    fuse: str,
    window: int,
    anchor_rule: str,
    anchor_start: int,
    anchor_stride: int,
    pinned: int,
    pinned_place: str,
    first_frame: str,
    guidance: float,
) -> RolloutSettings:
    """The model's settings with what was chosen instead, for a stream of `length` latent frames. Raises KnotForcingError."""
    changed = {}
    if steps:
        changed |= {"schedule": few_steps(steps, own.shift), "first_schedule": None}
    if guidance:
        changed["guidance"] = guidance
    if chunk > 0:
        changed |= {"chunk": chunk, "first_chunk": None}
    for name, value in (("knot_frames", knot_frames), ("pinned", pinned)):
        if value != OWN_NUMBER:
            changed[name] = value
    for name, value in (("pinned_place", pinned_place), ("first_frame", first_frame)):
        if value != OWN:
            changed[name] = value
    if knot != OWN:
        changed["knot"] = None if knot == "none" else knot
    if fuse != OWN:
        changed["fuse"] = fuse == ON
    elif changed.get("knot") == "pin":
        changed["fuse"] = False  # a copied knot has nothing to average
    if window != OWN_NUMBER:
        changed["window"] = window or None
    if changed.get("window", own.window) is None:
        # everything is remembered, so the cache must hold the whole stream and what the last chunk denoises beyond it
        changed["max_frames"] = length + 2 * (changed.get("chunk", own.chunk) + max(0, changed.get("knot_frames", own.knot_frames)))
    changed["anchor"] = _anchor(own.anchor, anchor_rule, anchor_start, anchor_stride)
    return replace(own, **changed)


def _anchor(own: AnchorRule | None, rule: str, start: int, stride: int) -> AnchorRule | None:
    def given(value, default):
        return default if value == OWN_NUMBER else value

    name = type(own).__name__.lower() if rule == OWN and own is not None else rule
    match name:
        case "ahead":
            before = own if isinstance(own, Ahead) else Ahead()
            return Ahead(given(start, before.start), given(stride, before.stride))
        case "behind":
            return Behind(given(start, own.gap if isinstance(own, Behind) else Behind().gap))
        case "fixed":
            return Fixed(given(start, own.position if isinstance(own, Fixed) else Fixed().position))
    return None


NODES = [Sampler]
