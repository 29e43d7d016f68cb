"""The recipe from clips to files, run small: stages may be repeated, files load strictly, what is missing is said."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import kf_core
from kf_core.checkpoints.load import load_generator
from kf_core.checkpoints.vaes import load_vae
from kf_core.errors import KnotForcingError
from kf_core.vae.wan import WanVAE
from lab.kf_tiny import audio_pretrain as hearing
from lab.kf_tiny import checkpointing as on_the_way
from lab.kf_tiny import clips, recipes, self_forcing, student, teacher
from lab.kf_tiny.audio_pretrain import report_of
from lab.kf_tiny.budget import SHARES, budget
from lab.kf_tiny.checkpointing import so_far
from lab.kf_tiny.clips import SHARD
from lab.kf_tiny.recipes import FILE, VAE_FILE, KfTiny
from lab.kf_tiny.student import grown_from

ASSETS = Path(kf_core.__file__).parent / "assets"


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> KfTiny:
    monkeypatch.setattr(clips, "LENGTHS", (49,))
    monkeypatch.setattr(recipes, "HELD_OUT_SPEECH_MINUTES", 1.0)
    monkeypatch.setattr(recipes, "HELD_OUT_CLIPS", SHARD)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield KfTiny(
        run=tmp_path / "run", size=32, vae_minutes=0, clips=SHARD, ear_minutes=0.03, student_minutes=0.02, teacher_minutes=0.02,
        rollout_minutes=0.02, speech_minutes=2.0, batch=2, device="cpu", threads=1, seed=0, out=tmp_path / "out",
    )  # fmt: skip
    torch.set_num_threads(threads)


def with_vae(recipe: KfTiny) -> None:
    torch.manual_seed(0)
    recipe.run.mkdir()
    save_file({name: weight.half() for name, weight in WanVAE(8).state_dict().items()}, recipe.run / VAE_FILE)


@pytest.mark.slow
def test_from_clips_to_files_and_once_more(recipe):
    with_vae(recipe)
    after_vae = ("clips", "ear", "student", "teacher", "rollouts", "files")
    for stage in after_vae:
        recipe.stages[stage]()
    written = load_file(recipe.out / FILE)
    for stage in after_vae:  # nothing is left to do
        recipe.stages[stage]()
    again = load_file(recipe.out / FILE)
    assert again.keys() == written.keys() and all(torch.equal(again[name], written[name]) for name in written)

    generator = load_generator(recipe.out / FILE)
    assert generator.card == recipe.card and load_vae(recipe.out / VAE_FILE).dim == 8
    with safe_open(recipe.out / FILE, "pt") as file:
        assert all(file.get_tensor(name).dtype == torch.float16 for name in file.keys())
        about = json.loads(file.metadata()["training"])
    assert about["training_clips"] == SHARD and about["steps"] > 1 and "rollout" in about

    for stage in (student, self_forcing):  # what a run that is cut off has left
        left = recipe.run / so_far(stage.FILE)
        assert load_generator(left).card == recipe.card and grown_from(left).startswith("kf-tiny of 32 x 32")
    assert all(torch.equal(weight, written[name]) for name, weight in load_file(left).items())


def test_a_stage_that_lacks_the_one_before_says_which(recipe):
    with pytest.raises(KnotForcingError, match="the stage `vae` makes"):
        recipe.stages["clips"]()
    with pytest.raises(KnotForcingError, match="Run the stage `clips` first"):
        recipe.stages["student"]()
    with pytest.raises(KnotForcingError, match="the stage `student` makes"):
        recipe.stages["rollouts"]()


def test_the_command_says_what_is_missing_and_fails(tmp_path):
    command = [sys.executable, "-m", "lab", "student", "--run", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "There are no clips" in done.stderr and "Traceback" not in done.stderr


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert on_the_way.commit() == "unknown"


def test_a_stage_takes_its_share_of_the_minutes_that_are_left_beside_those_that_are_told(recipe):
    told = replace(recipe, ear_minutes=0.0, teacher_minutes=2.0)
    assert budget(told, "clips", 12.0) == pytest.approx(1.5) and budget(told, "student", 12.0) == pytest.approx(10 * 0.45 / 0.85)
    assert budget(told, "rollouts", 4.0) == pytest.approx(3.5) and budget(told, "rollouts", -1.0) == 0
    assert sum(SHARES.values()) == pytest.approx(1)


def test_with_no_minutes_of_its_own_a_run_keeps_the_autoencoder_and_the_ear_it_grows_from(recipe):
    kept = replace(recipe, grow_from=ASSETS, vae_minutes=0.0, ear_minutes=0.0, teacher_minutes=0.0)
    for stage in ("vae", "ear", "teacher"):
        kept.stages[stage]()
    assert (kept.run / VAE_FILE).read_bytes() == (ASSETS / VAE_FILE).read_bytes()
    assert report_of(kept.run / hearing.FILE)["closed"] > 0.9 and not (kept.run / teacher.CHECKPOINT).exists()
    known = load_file(ASSETS / FILE)
    assert all(torch.equal(ear, known[hearing.EAR + name].float()) for name, ear in load_file(kept.run / hearing.FILE).items())


def test_minutes_of_a_whole_run_need_a_model_to_begin_with(tmp_path):
    command = [sys.executable, "-m", "lab", "kf-tiny", "--minutes", "1", "--run", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "--grow-from" in done.stderr and "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_training_needs_no_video_library():
    script = "import sys; sys.modules['av'] = None; import lab.kf_tiny.command"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
