"""The recipe of kf-tiny: autoencoder, clips, ear, student, teacher, own rollouts, files. Each stage reads what those before left in the
run's folder. A larger kf-tiny grows from a smaller one: its autoencoder, student and teacher begin with those weights.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from tqdm import tqdm

from kf_core.checkpoints.known_models import kf_tiny
from kf_core.checkpoints.load import load_generator
from kf_core.checkpoints.vaes import load_vae
from kf_core.errors import KnotForcingError
from kf_core.models.card import ModelCard

from . import audio_pretrain as hearing
from . import self_forcing, small_decoder, student
from .checkpointing import in_file, write_generator
from .clips import SHARD, ClipFolder, make_clips
from .examples import write_examples
from .measure import measure
from .model_card import write_card
from .self_forcing import probe_rollout, train_on_own_rollouts
from .speech_dataset import Library, speech_library
from .student import StudentTraining, grown_from, train_student
from .teacher import steps_of, train_teacher
from .vae import FILE as VAE_FILE
from .vae import train_vae

FILE, CARD_FILE = "kf-tiny.safetensors", "kf-tiny.md"
HELD_OUT_SPEECH_MINUTES = 6.0
HELD_OUT_CLIPS = 30
PATIENCE = 20  # seconds with further processes whose time is over


@dataclass(frozen=True, kw_only=True)
class KfTiny:
    """One run of the recipe. A public method is a stage and may be called again after it was killed."""

    run: Path
    size: int
    vae_minutes: float
    clips: int
    student_minutes: float
    teacher_minutes: float
    rollout_minutes: float
    batch: int
    device: str
    threads: int
    seed: int
    out: Path | None = None
    small_decoder_minutes: float = 40.0
    ear_minutes: float = 8.0
    grow_from: Path | None = None  # a folder with the two finished files of a smaller model
    frames_scale: float = 1.0  # so many times as many frames per step of the autoencoder
    workers: int = 0  # further processes that make clips
    clip_minutes: float = float("inf")  # when no more are made, though there are fewer than `clips`
    speech_minutes: float = 60.0  # of what the training clips say

    @property
    def card(self) -> ModelCard:
        return kf_tiny(self.size)

    @property
    def stages(self) -> dict[str, Callable[[], object]]:
        """By name, in the order in which they are run; speech alone, the small decoder and the examples stand apart."""
        return {
            "vae": self.train_vae,
            "clips": self.make_clips,
            "ear": self.train_ear,
            "student": self.train_student,
            "teacher": self.train_teacher,
            "rollouts": self.train_rollouts,
            "files": self.write_files,
            "measures": self.measure_files,
            "speech": self.make_speech,
            "small-decoder": self.train_small_decoder,
            "examples": lambda: write_examples(self._out),
        }

    def make_speech(self) -> None:
        """What clips and ear are made of, so that a machine without espeak-ng can be given it; else it is made where it is needed."""
        self._library("held-out", HELD_OUT_SPEECH_MINUTES)
        self._library("train", self.speech_minutes)

    def train_vae(self) -> None:
        """With no minutes, the autoencoder that is grown from stays as it is."""
        if self.grow_from is not None and self.vae_minutes == 0:
            if not (self.run / VAE_FILE).exists():
                self.run.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._smaller(VAE_FILE), self.run / VAE_FILE)
            return
        how = dict(device=self.device, threads=self.threads, seed=self.seed, grow_from=self._smaller(VAE_FILE))
        how |= dict(frames_scale=self.frames_scale)
        train_vae(self.run, size=self.size, minutes=self.vae_minutes, **how)

    def train_small_decoder(self) -> None:
        """Needs the autoencoder's file, as it is once its encoder is frozen."""
        how = dict(size=self.size, minutes=self.small_decoder_minutes, device=self.device, seed=self.seed)
        smaller = self._smaller(small_decoder.FILE)  # not every folder has one
        how |= dict(grow_from=smaller if smaller is not None and smaller.exists() else None, frames_scale=self.frames_scale)
        small_decoder.train_small_decoder(self.run, self._needed(VAE_FILE, "vae"), **how)

    def make_clips(self) -> None:
        """Needs the autoencoder's file, which is there as soon as its encoder is frozen. Held-out clips come first: probes need them."""
        file = self._needed(VAE_FILE, "vae")
        vae = load_vae(file, dtype=torch.float32, device=self.device)
        held_out, library = self._library("held-out", HELD_OUT_SPEECH_MINUTES), self._library("train", self.speech_minutes)
        make_clips(self._folder("held-out"), vae, held_out, count=HELD_OUT_CLIPS, size=self.size, split="held-out")
        with self._workers():
            make_clips(self._folder("train"), vae, library, **self._training_clips())

    @contextmanager
    def _workers(self) -> Iterator[None]:
        """Further processes that each make their part of the training clips, while this one makes its own."""
        context = torch.multiprocessing.get_context("spawn")
        parts = range(1, 1 + self.workers)
        processes = [context.Process(target=_make_part, args=(self, part, time.time()), daemon=True) for part in parts]
        for process in processes:
            process.start()
        yield
        for process in processes:
            process.join(None if self.clip_minutes == float("inf") else PATIENCE)
            process.terminate()
        if failed := sum(process.exitcode != 0 for process in processes):
            tqdm.write(f"{failed} of {len(processes)} processes that make clips failed; there are fewer clips until the stage is run again")

    def make_part(self, part: int, asked: float) -> None:
        """What a further process does that was asked for at this time: to begin takes it a while."""
        torch.set_num_threads(self.threads)
        vae = load_vae(self._needed(VAE_FILE, "vae"), dtype=torch.float32, device=self.device)
        how = self._training_clips()
        how["minutes"] -= (time.time() - asked) / 60
        make_clips(self._folder("train"), vae, self._library("train", self.speech_minutes), part=part, **how)

    def _training_clips(self) -> dict:
        return dict(count=self.clips, size=self.size, minutes=self.clip_minutes, parts=1 + self.workers)

    def train_ear(self) -> None:
        """Not gone on with: an ear that is there stays as it is. With no minutes it is that of the generator that is grown from."""
        file = self.run / hearing.FILE
        if not file.exists() and self.grow_from is not None and self.ear_minutes == 0:
            hearing.take_ear(self._smaller(FILE), file)
        elif not file.exists():
            libraries = self._library("train", self.speech_minutes), self._library("held-out", HELD_OUT_SPEECH_MINUTES)
            hearing.train_ear(file, self.card.audio, *libraries, minutes=self.ear_minutes, seed=self.seed)

    def train_student(self) -> None:
        folders, ear = self._folders(), self._needed(hearing.FILE, "ear")
        how = dict(minutes=self.student_minutes, grow_from=self._smaller(FILE), ear=ear)
        train_student(self.run, self.card, *folders, **how, **self._how())

    def train_teacher(self) -> None:
        """With no minutes there is none, and no stream is matched to it."""
        if self.teacher_minutes == 0:
            return
        if self._smaller(FILE) is None:
            self._needed(student.CHECKPOINT, "student")
        folders, ear = self._folders(), self._needed(hearing.FILE, "ear")
        how = dict(minutes=self.teacher_minutes, grow_from=self._smaller(FILE), ear=ear)
        train_teacher(self.run, self.card, *folders, **how, **self._how())

    def train_rollouts(self) -> None:
        if self._smaller(FILE) is None:
            self._needed(student.CHECKPOINT, "student")
        folders, ear = self._folders(), self._needed(hearing.FILE, "ear")
        how = dict(minutes=self.rollout_minutes, grow_from=self._smaller(FILE), ear=ear)
        train_on_own_rollouts(self.run, self.card, *folders, **how, **self._how())

    def write_files(self) -> None:
        """The running mean in float16 with its card and what was measured on exactly these weights, and the autoencoder beside it."""
        out = self._out
        out.mkdir(parents=True, exist_ok=True)
        checkpoint = self.run / self_forcing.CHECKPOINT
        checkpoint = checkpoint if checkpoint.exists() else self._needed(student.CHECKPOINT, "student")
        training = StudentTraining(self.card, device=self.device, batch=self.batch)
        training.load(checkpoint)
        weights = in_file(training.mean.tensors())
        training.mean.load_weights(weights)
        held_out = self._folder("held-out").read_new()
        report = probe_rollout(training.mean.generator(), held_out[0])
        about = {"steps": training.step, "training_clips": self._folder("train").shards * SHARD, **report}
        about |= {"ear": hearing.report_of(self._needed(hearing.FILE, "ear"))}
        about |= {"teacher_steps": steps_of(self.run), "grown_from": grown_from(self._smaller(FILE))}
        about = write_generator(out / FILE, weights, self.card, about)
        load_generator(out / FILE, dtype=torch.float32)  # strictly: what was written can be read
        shutil.copyfile(self._needed(VAE_FILE, "vae"), out / VAE_FILE)
        tqdm.write(f"{out / FILE}: {json.dumps(about)}")

    def measure_files(self) -> None:
        """Measure the finished files on held-out faces and voices; writes the model card beside them and contact sheets for the docs."""
        out = self._out
        model, vae = load_generator(out / FILE, device=self.device), load_vae(out / VAE_FILE, device=self.device)
        folder = self.run / "measures"
        summary = measure(model, vae, self._library("held-out", HELD_OUT_SPEECH_MINUTES), folder)
        write_card(out / CARD_FILE, out / FILE, out / VAE_FILE, summary, self.run)
        tqdm.write(f"{out / CARD_FILE}; frames in {folder}")

    @property
    def _out(self) -> Path:
        return self.out or Path(str(resources.files("kf_core") / "assets"))

    def _library(self, split: str, minutes: float) -> Library:
        file = self.run / f"speech-{split}.safetensors"
        if not file.exists():
            speech_library(minutes, held_out=split == "held-out", seed=self.seed).save(file)
        return Library.load(file)

    def _folder(self, split: str) -> ClipFolder:
        return ClipFolder(self.run / f"clips-{split}")

    def _folders(self) -> tuple[ClipFolder, ClipFolder]:
        folders = self._folder("train"), self._folder("held-out")
        if not all(folder.shards for folder in folders):
            raise KnotForcingError(f"There are no clips in {self.run} yet. Run the stage `clips` first, or start it and wait a minute.")
        return folders

    def _how(self) -> dict:
        return dict(device=self.device, seed=self.seed, batch=self.batch)

    def _smaller(self, name: str) -> Path | None:
        return None if self.grow_from is None else self.grow_from / name

    def _needed(self, name: str, stage: str) -> Path:
        if not (self.run / name).exists():
            raise KnotForcingError(f"{self.run} holds no {name}, which the stage `{stage}` makes. Run that stage first.")
        return self.run / name


def _make_part(recipe: KfTiny, part: int, asked: float) -> None:
    recipe.make_part(part, asked)
