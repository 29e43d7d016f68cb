"""Watching where attention falls: exact where the answer is known, and nothing the network computes is touched."""

from dataclasses import replace

import pytest
import torch

from kf_core.checkpoints.known_models import kf_tiny
from kf_core.models.adapters import Adapters
from kf_core.models.causal import Generator, sdpa
from kf_core.models.wan import WanModel
from kf_core.sampling.rollout import rollout
from kf_core.types import LatentChunk
from kf_core.vae.wan import WanVAE
from lab.kf_tiny.subjects import seat
from lab.protocols.attention import MASSES, Context, WatchedAttention, plot, watch
from lab.protocols.batched_rollout import begin

SIZE = 32


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(1)
    card = replace(kf_tiny(SIZE), dim=128, heads=1, ffn_dim=128, layers=2, audio=replace(kf_tiny().audio, first_layer=1, last_layer=1))
    return Generator(card, WanModel(card), Adapters(card)), WanVAE(4).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def sitters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return [seat(seed, 3, SIZE, folder) for seed in (1, 2)]


def even(keys, drawn, has_anchor=True, past=()):
    """What is noted when every query looks at every key alike."""
    watched = WatchedAttention(sdpa, tokens=3)
    watched.watch(has_anchor, past, drawn)
    watched(torch.zeros(2, 2, 3 * len(drawn), 8), torch.randn(2, 2, 3 * keys, 8), torch.randn(2, 2, 3 * keys, 8))
    return watched.result(kf_tiny().rollout)


def test_even_attention_falls_on_each_frame_alike():
    context = even(7, range(3, 7), past=(1, 2))
    assert all(seen == pytest.approx(dict.fromkeys((None, -2, -1, 0, 1, 2, 3), 1 / 7)) for seen in context.seen)
    alone = replace(context, settings=replace(context.settings, fuse=False))
    assert alone.masses("anchor") == pytest.approx([1 / 7] * 3) and alone.masses("past") == pytest.approx([2 / 7] * 3)
    assert alone.masses("earlier") == pytest.approx([0, 1 / 7, 2 / 7]) and alone.masses("later") == pytest.approx([3 / 7, 2 / 7, 1 / 7])
    assert alone.looked == pytest.approx([0.5, -0.5, -1.5])  # the mean of frames -2 .. 3 is 0.5; the anchor has no distance


def test_the_keys_order_does_not_matter_only_their_frames():
    watched = WatchedAttention(sdpa, tokens=1)
    watched.watch(False, (2, 1), range(3, 5))
    keys = torch.eye(4)[None, None] * 50.0
    watched(keys[:, :, :2] * 50.0, keys, keys)  # the first query looks at the first key, frame 2, the second at frame 1
    first, second = watched.result(kf_tiny().rollout).seen
    assert first[-1] == pytest.approx(1) and second[-2] == pytest.approx(1)


def test_a_frame_that_is_drawn_twice_was_drawn_from_both_contexts():
    seen = ({0: 1.0}, {0: 1.0}, {0: 1.0}, {-1: 0.5, None: 0.5})  # the fourth, as a knot, is the next chunk's first
    context = Context(seen=seen, settings=kf_tiny().rollout)
    assert context.output[0] == pytest.approx({0: 0.5, -4: 0.25, None: 0.25})
    assert context.output[1:] == [{0: 1.0}, {0: 1.0}]
    alone = replace(context, settings=replace(context.settings, fuse=False))
    assert alone.looked == [0, -1, -2] and alone.jump == 2 and alone.step == 1


def test_frames_of_one_chunk_that_look_alike_overlap_and_chunks_overlap_where_they_share_frames():
    context = even(7, range(3, 7), past=(1, 2))
    alone = replace(context, settings=replace(context.settings, fuse=False))
    assert alone.overlap == pytest.approx([1, 1, 4 / 7])  # of frames -2 .. 3 the next chunk sees 1 .. 6, and the anchor
    assert context.overlap[-1] > alone.overlap[-1]


def test_watching_changes_nothing_and_all_mass_is_found(networks, sitters):
    model, vae = networks
    settings = model.card.rollout
    contexts = {}
    for name, changed in (("full", settings), ("without-knot", replace(settings, knot=None, fuse=False))):
        contexts[name] = watch(model, vae, sitters, changed, with_pose=True)
        assert [sum(seen.values()) for seen in contexts[name].seen] == pytest.approx([1] * changed.denoised)
        assert torch.tensor([contexts[name].masses(mass) for mass in MASSES]).sum(0).tolist() == pytest.approx([1] * changed.chunk)
    drawn = plot(contexts)
    assert all(drawn.count(f'<g id="{name}">') == 2 for name in (*MASSES, *contexts))

    watched = WatchedAttention(sdpa, tokens=4)
    seeing = Generator(model.card, model.modules, model.adapters, attention=watched)
    made = []
    for generator in (model, seeing):
        state, *rest, noise = begin(generator, vae, sitters, settings, with_pose=True)
        watched.watch(True, state.cache.frames, range(3, 7))
        made.append(next(item for item in rollout(generator, *rest, settings, noise, state) if isinstance(item, LatentChunk)))
    assert torch.equal(made[0].latents, made[1].latents) and watched.result(settings).masses("anchor")[0] > 0


def test_nothing_watched_is_no_result():
    with pytest.raises(ValueError, match="no attention"):
        WatchedAttention(sdpa, 4).result(kf_tiny().rollout)
