"""What the autoencoder's training promises, on a tiny network and tiny frames."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import kf_core
from kf_core.checkpoints.vaes import load_vae
from kf_core.training.muon import Muon
from kf_core.vae.streaming import DecoderState, decode_latents, encode_clip
from kf_core.vae.wan import LATENT_MEAN, LATENT_STD, WanVAE
from lab.kf_tiny import checkpointing as on_the_way
from lab.kf_tiny import vae as recipe
from lab.kf_tiny import vae_measure
from lab.kf_tiny.clip_training import Stage, current_stage, learning_rate, spend
from lab.kf_tiny.vae import VAETraining, train_vae
from lab.kf_tiny.vae_clips import cut, draw
from lab.kf_tiny.vae_losses import fixed_reader, initialise, reading_losses
from lab.kf_tiny.vae_measure import fold_statistics, unfold_statistics

SIZE, DIM = 16, 4
ASSETS = Path(kf_core.__file__).parent / "assets"


@pytest.fixture(autouse=True)
def few_measurements(monkeypatch):
    monkeypatch.setattr(vae_measure, "STATISTICS_CLIPS", 4)
    monkeypatch.setattr(vae_measure, "MEASURED_CLIPS", 4)


def training(seed: int = 0) -> VAETraining:
    return VAETraining(size=SIZE, seed=seed, dim=DIM)


def weights(of: VAETraining) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in (*of.vae.parameters(), *of.mean_vae.parameters())])


@pytest.mark.parametrize("frozen", [False, True])
def test_resumed_equals_uninterrupted(tmp_path: Path, frozen: bool):
    straight, interrupted = training(), training()
    for run in (straight, interrupted):
        run.train_step(1, 2, 1.0)
        if frozen:
            run.freeze_encoder()
        run.train_step(5, 1, 1.0)
    interrupted.save(tmp_path / "checkpoint.pt")
    resumed = training(seed=1)
    resumed.load(tmp_path / "checkpoint.pt")
    for run in (straight, resumed):
        run.train_step(5, 1, 0.5, crop=0.5)
    assert resumed.step == 3 and resumed.is_frozen == frozen
    assert torch.equal(weights(straight), weights(resumed))


def test_a_run_that_was_killed_goes_on_from_its_checkpoint(tmp_path: Path):
    script = f"""
from pathlib import Path
from lab.kf_tiny import checkpointing, vae
checkpointing.SECONDS_BETWEEN_SAVES = (0, 0)
vae.CLIPS_SO_FAR = 4
vae.train_vae(Path({str(tmp_path)!r}), size={SIZE}, minutes=60, dim={DIM})
"""
    checkpoint = tmp_path / recipe.CHECKPOINT
    run = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not checkpoint.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = torch.load(checkpoint, weights_only=True)
    assert before["step"] > 0
    assert load_vae(tmp_path / "kf-tiny-vae-so-far.safetensors").dim == DIM  # written before the checkpoint
    train_vae(tmp_path, size=SIZE, minutes=(before["seconds"] + 0.01) / 60, dim=DIM)
    after = torch.load(checkpoint, weights_only=True)
    assert after["step"] > before["step"] and after["seconds"] > before["seconds"]
    assert not list(tmp_path.glob("*so-far*")) and (tmp_path / recipe.FILE).exists()


@pytest.mark.parametrize("precision, within", [("fp32", 0.02), ("bf16", 0.1)])
def test_a_file_on_the_way_has_wans_statistics_and_leaves_the_training_as_it_was(tmp_path: Path, monkeypatch, precision, within):
    monkeypatch.setenv("KF_PRECISION", precision)
    run = training()
    before = weights(run)
    file = tmp_path / "a folder that nobody has made yet" / "vae.safetensors"
    recipe.leave(run, file)
    assert torch.equal(weights(run), before)
    vae = WanVAE(DIM)
    vae.load_state_dict({name: weight.float() for name, weight in load_file(file).items()})
    mean, deviation = vae_measure.measure_statistics(vae, SIZE, "cpu", frames=9, clips=recipe.CLIPS_SO_FAR)
    assert (mean - torch.tensor(LATENT_MEAN)).abs().max() < within and (deviation / torch.tensor(LATENT_STD) - 1).abs().max() < within


def test_the_file_is_there_before_a_checkpoint_says_that_the_encoder_is_frozen(tmp_path: Path, monkeypatch):
    """A run that is killed between the two freezes again; with the checkpoint first it would have gone on without a file."""
    frozen_without_file = []
    save = VAETraining.save

    def looking(self, path):
        frozen_without_file.append(self.is_frozen and not (tmp_path / recipe.FILE).exists())
        save(self, path)

    monkeypatch.setattr(VAETraining, "save", looking)
    train_vae(tmp_path, size=SIZE, minutes=0.0, dim=DIM)
    assert frozen_without_file == [False, False]


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(on_the_way, "SECONDS_BETWEEN_SAVES", (0, 0))
    run = training()
    run.train_step(1, 2, 1.0)
    run.save(tmp_path / recipe.CHECKPOINT)
    saved = torch.load(tmp_path / recipe.CHECKPOINT, weights_only=True)
    run.vae.decoder.head[-1].bias.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss became nan at step 2"):
        spend(run, 1.0, tmp_path / recipe.CHECKPOINT, "VAE")
    assert torch.load(tmp_path / recipe.CHECKPOINT, weights_only=True)["step"] == saved["step"] == 1


def test_a_run_saves_often_enough_for_its_budget():
    assert [on_the_way.seconds_between_saves(60 * minutes) for minutes in (0.1, 4, 10, 65)] == [15, 24, 60, 120]


def test_the_file_holds_wans_names_in_half_precision_and_what_was_measured(tmp_path: Path):
    file = train_vae(tmp_path, size=SIZE, minutes=0.005, dim=DIM)
    with safe_open(file, "pt") as opened:
        assert set(opened.keys()) == set(WanVAE(DIM).state_dict())
        assert opened.get_tensor("decoder.head.0.gamma").shape[0] == DIM and opened.get_tensor("conv1.weight").dtype == torch.float16
        measured = json.loads(opened.metadata()["kf_tiny_vae"])
    assert measured["psnr"] > 3 and measured["streamed_minus_whole"] < 1e-4
    assert not list(tmp_path.glob("*.unfinished"))


def test_streams_and_clips_are_compared_in_whole_float32_and_nothing_else_is_changed():
    vae, flags = initialise(WanVAE(DIM)), lambda: (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark)
    before, seen = flags(), set()
    rounds = torch.backends.cudnn.allow_tf32
    vae.conv1.register_forward_hook(lambda *_: seen.add((torch.backends.cudnn.allow_tf32, *flags())))
    with torch.no_grad():
        assert vae_measure._streaming_error(vae, torch.rand(1, 3, 5, SIZE, SIZE)) < 1e-4
    assert seen == {(False, *before)} and flags() == before and torch.backends.cudnn.allow_tf32 == rounds


def test_latents_stay_the_same_once_the_encoder_is_frozen():
    run = training()
    run.train_step(1, 2, 1.0)
    run.freeze_encoder()
    frames = draw(1, 5, SIZE, torch.Generator().manual_seed(1)).frames

    @torch.no_grad()
    def both(vae: WanVAE):
        latents = encode_clip(vae, frames)
        return latents, decode_latents(vae, latents, DecoderState())

    before = both(run.vae)
    for _ in range(2):
        run.train_step(5, 1, 1.0)
    after = both(run.mean_vae)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


def test_folding_gives_latents_wans_statistics_and_leaves_the_frames():
    torch.manual_seed(0)
    vae = initialise(WanVAE(DIM)).double()
    frames = torch.rand(2, 3, 9, SIZE, SIZE, dtype=torch.float64)
    with torch.no_grad():
        raw, _ = vae.encode(frames, {})
        made = vae.decode(raw, {})
        fold_statistics(vae, raw.mean((0, 2, 3, 4)), raw.std((0, 2, 3, 4)))
        folded, _ = vae.encode(frames, {})
        assert torch.allclose(folded.mean((0, 2, 3, 4)), folded.new_tensor(LATENT_MEAN))
        assert torch.allclose(folded.std((0, 2, 3, 4)), folded.new_tensor(LATENT_STD))
        assert (vae.decode(folded, {}) - made).abs().max() < 1e-10


@pytest.mark.slow
def test_unfolding_gives_the_reader_its_latents_back_and_leaves_the_frames(monkeypatch):
    monkeypatch.setenv("KF_PRECISION", "fp32")  # the whole autoencoder: emulated, bfloat16 would take minutes
    vae = WanVAE(16)
    vae.load_state_dict({name: weight.float() for name, weight in load_file(ASSETS / "kf-tiny-vae.safetensors").items()})
    seen = draw(2, 5, 64, torch.Generator().manual_seed(3)).frames
    reader = fixed_reader()
    with torch.no_grad():
        folded, _ = vae.encode(seen * 2 - 1, {})
        made = vae.decode(folded, {})
        unfold_statistics(vae, 64, "cpu")
        unfolded, _ = vae.encode(seen * 2 - 1, {})
        assert (vae.decode(unfolded, {}) - made).abs().max() < 1e-3
        losses = [reading_losses(reader(latents), seen) for latents in (folded, unfolded)]
    assert all(after < before / 3 and after < 0.02 for before, after in zip(*losses, strict=True))
    assert unfolded[:, 6:].std((0, 2, 3, 4)).log().abs().max() < 1


@pytest.mark.slow
@pytest.mark.parametrize("size, stages", [(2 * SIZE, "GROWING_STAGES"), (SIZE, "CONTINUING_STAGES")])
def test_a_run_may_begin_with_the_weights_of_another_and_says_so_when_it_resumes(tmp_path: Path, size: int, stages: str):
    finished = train_vae(tmp_path / "small", size=SIZE, minutes=0.003, dim=DIM)
    train_vae(tmp_path / "large", size=size, minutes=0.0, dim=DIM, grow_from=finished)
    with torch.no_grad():
        frames = draw(1, 5, size, torch.Generator().manual_seed(1)).frames
        made = []
        for file in (finished, tmp_path / "large" / recipe.FILE):
            vae = WanVAE(DIM)
            vae.load_state_dict({name: weight.float() for name, weight in load_file(file).items()})
            made.append(decode_latents(vae, encode_clip(vae, frames), DecoderState()))
    assert (made[0] - made[1]).abs().max() < 0.02  # rounded twice to half precision
    again = VAETraining(size=size, dim=DIM)
    again.load(tmp_path / "large" / recipe.CHECKPOINT)
    assert again.begun_with and again.stages is getattr(recipe, stages)


def test_an_untrained_network_treats_every_frame_alone_and_repeats_it():
    vae = initialise(WanVAE(DIM))
    still = torch.rand(1, 3, 1, SIZE, SIZE)
    with torch.no_grad():
        one, nine = (vae.decode(vae.encode(still.expand(-1, -1, f, -1, -1), {})[0], {}) for f in (1, 9))
    assert nine.shape[2] == 9 and (nine - one).abs().max() < 1e-5


@pytest.mark.slow
def test_training_learns_to_reconstruct():
    run = training()
    losses = [run.train_step(1, 8, 1.0)["loss"] for _ in range(60)]
    assert sum(losses[-5:]) < 0.87 * sum(losses[:5])


def test_the_stages_fill_the_budget_and_the_rate_ends_at_nothing():
    assert current_stage(0.0, recipe.STAGES).frames == (1,)
    for stages in (recipe.STAGES, recipe.GROWING_STAGES):
        assert current_stage(1.0, stages).decoder_only and learning_rate(1.0, stages) == 0
        assert [stage.until for stage in stages] == sorted({stage.until for stage in stages}) and stages[-1].until == 1
        assert all((frames - 1) % 4 == 0 for stage in stages for frames in stage.frames)


def test_a_cut_keeps_frames_and_boxes_together():
    clips = draw(2, 5, 32, torch.Generator().manual_seed(0))
    part = cut(clips, 0.5, torch.Generator().manual_seed(1))
    assert part.frames.shape[-2:] == part.mouth.shape[-2:] == (16, 16)
    places = [
        (top, left)
        for top in range(17)
        for left in range(17)
        if torch.equal(clips.frames[..., top : top + 16, left : left + 16], part.frames)
    ]
    assert any(torch.equal(clips.mouth[..., t : t + 16, l : l + 16], part.mouth) for t, l in places)


def test_boxes_hold_mouth_and_eyes():
    clips = draw(4, 5, 48, torch.Generator().manual_seed(0))
    for mask in (clips.mouth, clips.eyes):
        assert 0.005 < mask.mean() < 0.3 and set(mask.unique().tolist()) == {0.0, 1.0}
    assert (clips.mouth * clips.eyes).mean() < 0.01


def test_the_long_way_through_an_untrained_network_neither_grows_nor_fades():
    torch.manual_seed(0)
    vae, sizes = initialise(WanVAE(DIM)), []
    for module in (*vae.encoder.downsamples, *vae.decoder.upsamples):
        module.register_forward_hook(lambda _module, _inputs, out: sizes.append(out.square().mean().sqrt().item()))
    with torch.no_grad():
        vae.decode(vae.encode(draw(2, 5, 32, torch.Generator().manual_seed(0)).frames * 2 - 1, {})[0], {})
    assert len(sizes) == 11 + 15 and 0.3 < min(sizes) and max(sizes) < 4


def test_weight_decay_bounds_a_weight_that_nothing_else_bounds():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 8))
    optimiser = Muon([weight], lr=0.1, weight_decay=0.5)
    for _ in range(200):
        weight.grad = -torch.eye(8)
        optimiser.step()
    assert torch.linalg.matrix_norm(weight, 2) < 1.3 / 0.5


def test_a_cut_around_the_mouths_holds_them():
    clips = draw(6, 1, 96, torch.Generator().manual_seed(5))
    inside = [cut(clips, 1 / 2, torch.Generator().manual_seed(seed), mouths=True).mouth.sum() / clips.mouth.sum() for seed in range(8)]
    anywhere = [cut(clips, 1 / 2, torch.Generator().manual_seed(seed)).mouth.sum() / clips.mouth.sum() for seed in range(8)]
    assert min(inside) > 0.6 and sum(inside) > 1.5 * sum(anywhere)
    assert cut(clips, 1 / 2, torch.Generator().manual_seed(0), mouths=True).frames.shape[-2:] == (48, 48)


def test_what_is_read_off_a_latent_tells_its_four_frames_apart():
    """A mouth that opens in the first of four frames must not look like one that opens in the last."""
    still = torch.full((1, 3, 9, SIZE, SIZE), 0.5)
    flash = {place: still.clone() for place in range(4)}
    for place, frames in flash.items():
        frames[:, :, 5 + place] = 1.0  # latent 2 holds frames 5 .. 8
    nothing = torch.zeros(1, 6, 3, SIZE // 8, SIZE // 8)
    nothing[:, :3] = 0.5
    rights = []
    for place, frames in flash.items():
        right = nothing.clone()
        right[:, :3, 2] = 0.625
        right[:, 3:, 2] = -0.5
        if place < 3:
            right[:, 3 + place, 2] = 1.5
        assert sum(reading_losses(right, frames)) < 1e-6
        rights.append(right)
    assert all(reading_losses(rights[a], flash[b])[1] > 0.05 for a in range(4) for b in range(4) if a != b)
    assert sum(reading_losses(nothing, still)) == 0


def test_a_scale_of_frames_makes_a_step_see_so_many_times_as_many():
    run = training()
    seen = []
    for scale in (1.0, 2.5):
        run.frames_scale = scale
        seen.append(run.learn(Stage("frames", 1.0, (1,), 2, (1.0, 1.0)), 0.0)["frames"])
    assert seen == [2, 5]
