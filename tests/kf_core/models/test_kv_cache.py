"""The laws of the cache."""

import pytest
import torch

from kf_core.errors import KnotForcingError
from kf_core.models import kv_cache
from kf_core.models.kv_cache import KVCache
from kf_core.models.rope import Grid, rotation
from kf_core.models.visibility import committed_in_view
from kf_core.schedule import warped
from kf_core.settings import Ahead, RolloutSettings
from kf_core.timeline import LatentSpan

GRID, LAYERS, HEADS, HEAD_DIM = Grid(1, 2), 2, 2, 12

POLICIES = {
    "knot forcing": dict(),
    "without an anchor": dict(anchor=None),
    "wide window": dict(window=12),
    "no past at all": dict(window=4),
    "absolute, growing": dict(anchor=None, knot=None, fuse=False, window=None, max_frames=99),
    "absolute, rolling": dict(anchor=None, knot=None, fuse=False, window=6, pinned=9),
    "in front of the window": dict(anchor=None, knot=None, fuse=False, window=9, pinned=3, pinned_place="in front"),
    "anchor and sink": dict(pinned=2, window=8),
    "short first chunk": dict(chunk=4, first_chunk=1, window=9),
}


def settings_of(policy: str) -> RolloutSettings:
    return RolloutSettings(**{"schedule": warped(), "anchor": Ahead(200, 20), **POLICIES[policy]})


def new_cache(settings: RolloutSettings) -> KVCache:
    cache = KVCache(settings, batch=1, layers=LAYERS, heads=HEADS, head_dim=HEAD_DIM, grid=GRID, dtype=torch.float64)
    if settings.anchor is not None:
        with cache.set_anchor() as record:
            for _ in range(LAYERS):
                record(marked([-1]), marked([-1]))
    return cache


def marked(frames) -> torch.Tensor:
    """Keys or values that say which frame they belong to: [1, n, t, d]."""
    numbers = torch.tensor(list(frames), dtype=torch.float64).repeat_interleave(GRID.tokens)
    return numbers[None, None, :, None].expand(1, HEADS, -1, HEAD_DIM).contiguous()


def commit(cache: KVCache, span: LatentSpan) -> None:
    with cache.commit(span) as record:
        for _ in range(LAYERS):
            record(marked(span), marked(span))


def place(cache: KVCache):
    return cache.apply_rope(None if cache.settings.anchor is None else 50)


def seen(cache: KVCache) -> list[int]:
    """The frames that a reader sees, -1 for the anchor, without the frame (77) that it brings along."""
    _, values = place(cache).read(0, marked([77]), marked([77]))
    frames = values[0, 0, :: GRID.tokens, 0].int().tolist()
    assert frames.pop() == 77
    return frames


@pytest.mark.parametrize("policy", POLICIES)
def test_the_cache_remembers_what_visibility_says(policy):
    settings = settings_of(policy)
    cache = new_cache(settings)
    for chunk in range(8):
        span = settings.output_span(chunk)
        anchor = [] if settings.anchor is None else [-1]
        assert sorted(seen(cache)) == anchor + sorted(committed_in_view(span.start, settings))
        commit(cache, span)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_key_stands_where_its_frame_stands(policy):
    settings = settings_of(policy)
    cache = new_cache(settings)
    for chunk in range(6):
        anchor = None if settings.anchor is None else 50 + 10 * (chunk // 2)
        commit(cache, settings.output_span(chunk))
        keys, _ = cache.apply_rope(anchor).read(1, marked([]), marked([]))
        frames = cache.frames
        window = min((f for f in frames if f >= settings.pinned), default=cache.next_frame)
        stand = [f - settings.pinned + window if settings.pinned_place == "in front" and f < settings.pinned else f for f in frames]
        if anchor is not None:
            frames, stand = [-1, *frames], [anchor, *stand]
        turn = rotation(torch.tensor(stand, dtype=torch.float64), GRID, HEAD_DIM, torch.float64)
        torch.testing.assert_close(keys, turn(marked(frames)))


def test_a_key_is_turned_again_only_when_it_moved(monkeypatch):
    turned = []
    monkeypatch.setattr(kv_cache, "rotation", lambda places, *rest: turned.extend(places.tolist()) or rotation(places, *rest))
    cache = new_cache(settings_of("wide window"))
    for chunk, anchor in enumerate((50, 50, 70, 70, 70)):
        turned.clear()
        cache.apply_rope(anchor)
        assert turned == ([anchor] if chunk in (0, 2) else [])
        turned.clear()
        commit(cache, cache.settings.output_span(chunk))
        assert sorted(turned) == list(cache.settings.output_span(chunk)), "a frame of the window is rotated once, when it is committed"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_cache_that_was_saved_with_all_keys_before_rope_is_taken_up(policy):
    """As versions before this one wrote it."""
    saved = new_cache(settings_of(policy))
    for chunk in range(3):
        commit(saved, saved.settings.output_span(chunk))
    now = saved.tensors()
    frames = ([-1] if saved.settings.anchor is not None else []) + saved.frames
    before = {"keys": marked(frames).expand(LAYERS, 1, -1, -1, -1), "values": now["values"], "next_frame": now["next_frame"]}
    again = new_cache(settings_of(policy))
    again.restore(before)
    nobody = marked([])
    for ours, theirs in zip(place(again).read(1, nobody, nobody), place(saved).read(1, nobody, nobody), strict=True):
        assert torch.equal(ours, theirs)


def test_keys_are_kept_twice_only_where_they_move():
    frame = LAYERS * HEADS * GRID.tokens * HEAD_DIM * 8
    for policy, moving in {
        "knot forcing": 1,
        "without an anchor": 0,
        "absolute, rolling": 0,
        "in front of the window": 3,
        "anchor and sink": 1,
    }.items():
        settings = settings_of(policy)
        slots = (settings.anchor is not None) + settings.pinned + settings.past
        assert new_cache(settings).num_bytes == frame * (moving + 2 * (slots + settings.denoised))


def test_reading_never_changes_what_is_remembered():
    cache = new_cache(settings_of("knot forcing"))
    commit(cache, LatentSpan(0, 3))
    before = cache.tensors()
    memory = place(cache)
    for _ in range(3):
        memory.read(0, torch.randn(1, HEADS, 8, HEAD_DIM).double(), torch.randn(1, HEADS, 8, HEAD_DIM).double())
    after = cache.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert sorted(seen(cache)) == [-1, 1, 2]


def test_a_failed_commit_leaves_the_cache_as_it_was():
    cache = new_cache(settings_of("knot forcing"))
    commit(cache, LatentSpan(0, 3))
    before = cache.tensors()
    with pytest.raises(RuntimeError), cache.commit(LatentSpan(3, 6)) as record:
        record(marked(range(3, 6)), marked(range(3, 6)))
        raise RuntimeError("out of memory in layer 1")
    after = cache.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before) and cache.next_frame == 3


def test_a_commit_that_misses_a_layer_is_refused():
    cache = new_cache(settings_of("knot forcing"))
    with pytest.raises(ValueError, match="1 of 2 layers"), cache.commit(LatentSpan(0, 3)) as record:
        record(marked(range(3)), marked(range(3)))
    assert cache.next_frame == 0


def test_frames_are_committed_once_and_in_order():
    cache = new_cache(settings_of("knot forcing"))
    commit(cache, LatentSpan(0, 3))
    for span in (LatentSpan(0, 3), LatentSpan(4, 7)):
        with pytest.raises(ValueError, match="expects frame 3"), cache.commit(span):
            pass


def test_a_memory_that_was_placed_anew_is_stale():
    cache = new_cache(settings_of("knot forcing"))
    memory = place(cache)
    place(cache)
    with pytest.raises(ValueError, match="stale"):
        memory.read(0, marked([1]), marked([1]))


def test_memory_is_fixed_when_the_cache_is_made():
    cache = new_cache(settings_of("knot forcing"))
    size = cache.num_bytes
    for chunk in range(50):
        place(cache)
        commit(cache, cache.settings.output_span(chunk))
    assert cache.num_bytes == size


def test_an_unlimited_window_says_when_it_is_full():
    settings = RolloutSettings(schedule=warped(), anchor=None, knot=None, fuse=False, window=None, max_frames=6)
    cache = new_cache(settings)
    commit(cache, LatentSpan(0, 3))
    commit(cache, LatentSpan(3, 6))
    with pytest.raises(KnotForcingError, match="max_frames"), cache.commit(LatentSpan(6, 9)):
        pass
    assert sorted(seen(cache)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_restored_cache_equals_the_saved_one(policy):
    settings = settings_of(policy)
    cache, other = new_cache(settings), new_cache(settings)
    for chunk in range(5):
        commit(cache, settings.output_span(chunk))
    other.restore({name: tensor.clone() for name, tensor in cache.tensors().items()})
    for both in (cache, other):
        commit(both, settings.output_span(5))
    ours, theirs = (place(c).read(0, marked([7]), marked([7])) for c in (cache, other))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)) and other.next_frame == cache.next_frame


def test_a_cache_of_other_sizes_is_not_restored():
    cache = new_cache(settings_of("knot forcing"))
    commit(cache, LatentSpan(0, 3))
    other = new_cache(settings_of("wide window"))
    with pytest.raises(ValueError, match="does not fit"):
        other.restore(cache.tensors())
    assert other.next_frame == 0
