"""The few steps from noise to frames, as (sigma, t) pairs: how noisy the latent is, and what the network is told.

Source: Wan 2.1's shifted flow matching; the 4 steps as in Self-Forcing ("warped": 1000, 750, 500, 250 through shift 5).
"""

from .errors import KnotForcingError

Schedule = tuple[tuple[float, float], ...]

TRAIN_STEPS = 1000


def warped(steps: tuple[int, ...] = (1000, 750, 500, 250), shift: float = 5.0) -> Schedule:
    """Steps counted on the unshifted clock: sigma = shift*b / (1 + (shift-1)*b), t = 1000*sigma.

    warped() is exactly t = 1000, 937.5, 833.33, 625."""
    sigmas = (shift * b / (1 + (shift - 1) * b) for b in (s / TRAIN_STEPS for s in steps))
    return tuple((sigma, TRAIN_STEPS * sigma) for sigma in sigmas)


def unwarped(times: tuple[float, ...], shift: float) -> Schedule:
    """Steps by what the network is told; each is as noisy as the training step nearest to it (CausVid, Krea)."""
    trained = [sigma for sigma, _ in warped(tuple(range(TRAIN_STEPS, 0, -1)), shift)]
    return tuple((min(trained, key=lambda sigma: abs(TRAIN_STEPS * sigma - t)), t) for t in times)


def few_steps(count: int, shift: float = 5.0) -> Schedule:
    """`count` warped steps, evenly spaced on the unshifted clock; 4 are what the models were trained with."""
    if not 1 <= count <= 100:
        raise KnotForcingError(
            f"{count} denoising steps were asked for. Between 1 and 100 are possible; 4 is what the models were trained with."
        )
    return warped(tuple(round(TRAIN_STEPS * (count - i) / count) for i in range(count)), shift)
