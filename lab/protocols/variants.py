"""The method and what it is without each of its parts, as values of RolloutSettings: the rows of an ablation.

Every variant is one change of the model's own settings. Source: Knot Forcing, arXiv 2512.21734 (knot, fusion, running ahead, anchor,
window); Self Forcing, arXiv 2506.08009.
"""

from dataclasses import dataclass, replace

from kf_core.errors import KnotForcingError
from kf_core.settings import Ahead, Behind, Fixed, RolloutSettings

FULL = "full"
STRIDES, WINDOWS = (3, 6, 20), (4, 6, 12)
GAP = 4  # latent frames by which an anchor that is behind follows
ROLLING = 12  # latent frames that the rolling Self Forcing attends
# which variants are worth a longer run, by the least seconds that count as one
LONGER = {
    300.0: (FULL, "without-anchor", "anchor-fixed"),
    45.0: (FULL, "without-knot", "anchor-fixed", "without-anchor"),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to roll out."""

    name: str  # on the command line and in files
    settings: RolloutSettings
    change: str  # what is different, in words


@dataclass(frozen=True)
class Trained:
    """Whether training showed the model what a variant asks of it."""

    share: float  # of the training samples
    limit: str = ""  # how far that goes, where it has an end

    ENOUGH = 0.1

    def __str__(self) -> str:
        if self.share < self.ENOUGH - 1e-9:
            return "untrained" if self.share == 0 else f"untrained ({self.share:.0%} of the samples)"
        return f"{self.share:.0%} of the samples" + (f"; {self.limit}" if self.limit else "")


def variants(own: RolloutSettings, latent_frames: int) -> dict[str, Variant]:
    """All variants of a model with these settings, for streams of this length; those that change nothing are left out."""
    if own.knot is None or not isinstance(own.anchor, Ahead) or own.window is None:
        raise KnotForcingError(
            "An ablation turns the parts of Knot Forcing off one by one, and this model's own settings lack one of them (knot, an anchor "
            "that runs ahead, a window). Choose a model that has all three, such as the bundled kf-tiny."
        )
    untied = replace(own, knot=None, fuse=False)
    shorter = own.window - own.knot_length
    whole = -(-latent_frames // own.chunk) * own.chunk
    found = [
        Variant(name=FULL, settings=own, change="the method"),
        Variant(name="without-knot", settings=untied, change="chunks are not tied: nothing is drawn twice"),
        Variant(
            name=f"without-knot-window-{shorter}",
            settings=replace(untied, window=shorter),
            change=f"no knot, and {own.past} past frames in view as with it: without one the window has room for {untied.past}",
        ),
        Variant(name="without-fusion", settings=replace(own, fuse=False), change="the knot enters, but the second drawing stands alone"),
        Variant(
            name="anchor-fixed",
            settings=replace(own, anchor=Fixed(own.anchor.start)),
            change=f"the anchor stays at frame {own.anchor.start} and is overtaken",
        ),
        Variant(name="anchor-behind", settings=replace(own, anchor=Behind(GAP)), change=f"the anchor follows {GAP} frames behind"),
        Variant(name="without-anchor", settings=replace(own, anchor=None), change="no portrait in the cache, only the window"),
        *(
            Variant(
                name=f"stride-{stride}",
                settings=replace(own, anchor=Ahead(own.anchor.start, stride)),
                change=f"the anchor jumps {stride} frames ahead, not {own.anchor.stride}",
            )
            for stride in STRIDES
        ),
        *(
            Variant(
                name=f"window-{window}",
                settings=replace(own, window=window),
                change=f"attention sees {window} frames, {window - own.denoised} of them past",
            )
            for window in WINDOWS
            if window >= own.denoised
        ),
        Variant(
            name="self-forcing",
            settings=replace(untied, anchor=None, window=None, max_frames=whole),
            change="Self Forcing as is: no knot, no anchor, every frame stays in the cache",
        ),
        Variant(
            name="self-forcing-rolling",
            settings=replace(untied, anchor=None, window=ROLLING),
            change=f"Self Forcing with a window of {ROLLING} frames",
        ),
    ]
    return {variant.name: variant for variant in found if variant.name == FULL or variant.settings != own}


def chosen(names: str | None, all_of_them: dict[str, Variant], seconds: float) -> tuple[Variant, ...]:
    """The variants named in a comma-separated list; None: those that are worth a run of this length. The full method is always there."""
    if names is None:
        wanted = next((few for least, few in LONGER.items() if seconds >= least), tuple(all_of_them))
    else:
        wanted = tuple(name.strip() for name in names.split(","))
    if unknown := [name for name in wanted if name not in all_of_them]:
        raise KnotForcingError(f"There is no variant {', '.join(unknown)}. There are: {', '.join(all_of_them)}.")
    return tuple(all_of_them[name] for name in dict.fromkeys((FULL, *wanted)))
