"""A whole run within so many minutes of the clock, begun with a finished model: what each stage may take of what is left.

Shares are taken when a stage begins, of the minutes that are still left, so what one stage saves or wastes is the next ones' to have.
Stages whose minutes are told (the autoencoder, the ear, the teacher; none, unless they are told) take those.
"""

import time
from dataclasses import replace

from .recipes import KfTiny

STAGES = ("vae", "clips", "ear", "student", "teacher", "rollouts", "files")
SHARES = {"clips": 0.15, "student": 0.45, "rollouts": 0.35, "files": 0.05}
BUDGETS = {"clips": "clip_minutes", "student": "student_minutes", "rollouts": "rollout_minutes"}
TOLD = {"ear": "ear_minutes", "teacher": "teacher_minutes"}  # beside the autoencoder's, which come first


def run_within(recipe: KfTiny, minutes: float) -> None:
    """All stages up to the files. Cut off at any moment, the run's folder holds what the running means are worth so far."""
    started = time.monotonic()
    for stage in STAGES:
        left = minutes - (time.monotonic() - started) / 60
        if stage in BUDGETS:
            recipe = replace(recipe, **{BUDGETS[stage]: budget(recipe, stage, left)})
        recipe.stages[stage]()


def budget(recipe: KfTiny, stage: str, left: float) -> float:
    """Minutes for this stage when so many are `left` for it and all later ones."""
    later = STAGES[STAGES.index(stage) :]
    told = sum(getattr(recipe, TOLD[name]) for name in later if name in TOLD)
    return max(0.0, left - told) * SHARES[stage] / sum(SHARES[name] for name in later if name in SHARES)
