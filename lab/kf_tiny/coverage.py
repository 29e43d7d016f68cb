"""What training has shown: for any settings, the share of the student's batches that were laid out like a chunk under them.

Only the layouts of `batches.py` are counted; rollouts on own frames come on top of them under the usual settings.
"""

from kf_core.settings import Ahead, Behind, Fixed, RolloutSettings
from kf_core.timeline import LatentSpan, pixels

from ..protocols.variants import Trained
from .batches import BEHIND, BEHIND_SHARE, LEADS, Layout, layouts
from .speech_dataset import FPS


def coverage(own: RolloutSettings, asked: RolloutSettings) -> Trained:
    """How well the layouts for `own` prepare for `asked`: with or without knot, with or without anchor, as many past frames in view.

    A stream's first chunk is left out, since no later one is like it. Where the anchor stands is drawn beside the layout, so for an anchor
    that is behind its own share is what counts."""
    alike = [layout for layout in layouts(own) if _parts(layout.settings) == _parts(asked) and not layout.is_first]
    share = sum(layout.share for layout in alike if _seen(layout) == asked.past)
    limit = _limit_of_anchor(asked)
    if asked.window is None and alike:
        most = max(map(_seen, alike))
        share = sum(layout.share for layout in alike if _seen(layout) == most)
        limit = f"with {most} past frames in view: the first {_seconds(most + asked.chunk):.1f} s of a stream"
    if isinstance(asked.anchor, Behind):
        anchored = sum(layout.share for layout in layouts(own) if layout.settings.anchor is not None)
        share = BEHIND_SHARE * anchored if BEHIND[0] <= asked.anchor.gap <= BEHIND[1] else 0.0
    return Trained(share, limit)


def _parts(settings: RolloutSettings) -> tuple[bool, bool]:
    return settings.knot is None, settings.anchor is None


def _seen(layout: Layout) -> int:
    return min(layout.past, layout.settings.past)


def _limit_of_anchor(asked: RolloutSettings) -> str:
    match asked.anchor:
        case Ahead(start=start, stride=stride):
            lead = max(start - asked.denoised + 1, stride)
            return "" if lead <= LEADS[1] else f"leads of up to {LEADS[1]} of {lead} frames"
        case Fixed(position=position):
            return f"while the anchor is not more than {BEHIND[1]} frames behind: the first {_seconds(position + BEHIND[1]):.1f} s"
        case _:
            return ""


def _seconds(frames: int) -> float:
    """How long this many latent frames play."""
    return pixels(LatentSpan(0, frames)).stop / FPS
