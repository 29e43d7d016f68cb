"""The files that a protocol measures, and what a page must say of them: which weights, trained how long, by which code.

Knows git, because numbers without a commit cannot be made again; outside a checkout it says `unknown`.
"""

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kf_core.checkpoints.load import bundled, load_generator
from kf_core.checkpoints.read import read_header
from kf_core.checkpoints.vaes import load_vae
from kf_core.metrics.reader import load_reader
from kf_core.settings import RolloutSettings

from .ablation import Equipment

LAST_WITHOUT_NUMBER = "b32ad32"  # a commit of the last files that do not say how their batches were laid out


@dataclass(frozen=True)
class MeasuredFiles:
    """A generator and its autoencoder."""

    generator: Path
    vae: Path

    @classmethod
    def of(cls, generator: Path | None, vae: Path | None) -> "MeasuredFiles":
        """None: the bundled one."""
        return cls(generator or bundled("kf-tiny.safetensors"), vae or bundled("kf-tiny-vae.safetensors"))

    def load(self, device: torch.device | str = "cpu") -> Equipment:
        return Equipment(load_generator(self.generator, device=device), load_vae(self.vae, device=device), load_reader().to(device))

    def facts(self) -> dict[str, str]:
        """Which weights and which code, for a page."""
        trained = self._trained()
        steps = f", trained for {trained['steps']} steps at commit {trained['commit']}" if {"steps", "commit"} <= trained.keys() else ""
        return {"model": f"{self.generator.name}{steps}", "code": _commit()}

    def trained_under(self, own: RolloutSettings, layouts: int) -> RolloutSettings | None:
        """The settings whose `layouts` (the code's, of that number) are those that the file was trained with; None: nobody knows.

        Files that say no number are known by the text of `batches.py` at their commit: it is that of the last ones, to which no beginning
        on the portrait was shown yet."""
        trained = self._trained()
        if "layouts" in trained:
            return own if trained["layouts"] == layouts else None

        def text(commit):
            return _git("show", f"{commit}:kf_core/training/batches.py", folder=Path(__file__).parent)

        then = text(trained.get("commit", "unknown"))
        return replace(own, first_frame="free") if then is not None and then == text(LAST_WITHOUT_NUMBER) else None

    def _trained(self) -> dict:
        return json.loads(read_header(self.generator).metadata.get("training", "{}"))


def _commit() -> str:
    """Which commit this code is, or `unknown` outside a checkout."""
    found = _git("describe", "--always", "--dirty", folder=Path(__file__).parent)
    return (found or "unknown").strip()


def _git(*words: str, folder: Path) -> str | None:
    """What git answers; None where it does not."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, encoding="utf-8")
    except OSError:
        return None
    return None if done.returncode else done.stdout
