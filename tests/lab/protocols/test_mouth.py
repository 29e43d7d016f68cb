"""The mouth's protocols: exact on tracks whose answer is known, and repeatable."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.kf_tiny.subjects import seat, seat_with_pause
from lab.protocols import mouth, mouth_page
from lab.protocols.ablation import POSE_AND_SOUND, SOUND_ONLY, TRUTH
from lab.protocols.mouth import WITH_IDLE, Protocol, joined, pause_of, r_inside, share_shut, shut_below, voiced
from lab.protocols.results import Results

from .test_ablation import SIZE, equipment

FPS = 16


def test_a_mouth_that_shuts_at_its_closures_is_found_and_one_that_does_not_is_not():
    opening = torch.full((40,), 0.6)
    opening[[10, 21]] = 0.0
    assert share_shut(opening, (10, 20), threshold=0.05) == 1  # the second a frame late: within the slack
    assert share_shut(opening, (10, 20), threshold=0.05, shift=8) == 0
    assert share_shut(opening, (10, 30), threshold=0.05) == 0.5
    assert share_shut(opening, (39,), threshold=0.05, shift=8) is None


def test_the_threshold_is_what_most_true_closures_stay_within():
    track = torch.full((100,), 0.9)
    closures = tuple(range(5, 95, 10))
    track[list(closures)] = torch.linspace(0, 0.08, 9)
    threshold = shut_below({1: track}, {1: closures})
    assert 0.06 < threshold < 0.08 and share_shut(track, closures, threshold) == pytest.approx(8 / 9)


def test_a_sitter_without_closures_is_not_asked_and_where_none_has_any_there_is_no_threshold():
    track = torch.rand(40, generator=torch.Generator().manual_seed(0))
    assert shut_below({1: track, 2: track}, {1: (10, 20), 2: ()}) == shut_below({1: track}, {1: (10, 20)})
    assert shut_below({1: track}, {1: ()}) is None


def test_sitters_who_say_no_m_b_or_p_are_still_measured_by_how_their_mouths_follow(tmp_path):
    track = torch.rand(40, generator=torch.Generator().manual_seed(0))
    line = dict(protocol=mouth_page.CLOSURES, of="2 s", condition=TRUTH, tracks={"mouth_open": track.tolist()})
    Results(tmp_path / mouth.RESULTS).append([line | {"seed": 1}])
    protocol = Protocol(mouth_page.CLOSURES, "2 s", lambda seed: None)
    known = dict(fps=FPS, closures={1: ()}, silent=(0.5, 1.5), true_openings={1: track})
    found = mouth_page.numbers(tmp_path, [protocol], **known)
    assert found[mouth_page.CLOSURES][TRUTH]["mouth r"] == pytest.approx(1) and "m, b, p" not in mouth_page.table(found)


def speaking(pause=slice(40, 120)):
    seconds = torch.arange(160) / FPS
    tracks = {name: (2 * torch.pi * 0.5 * seconds).sin() for name in ("yaw", "pitch", "roll")}
    tracks |= {"mouth_open": torch.full((160,), 0.5), "blink": torch.zeros(160)}
    tracks["mouth_open"][pause] = 0.05
    tracks["blink"][60:64] = tracks["blink"][100:104] = 1.0
    return tracks


def test_a_pause_in_which_the_mouth_rests_and_the_face_lives_on():
    found = pause_of(speaking(), (2.5, 7.5), FPS)
    assert found.opening_share == pytest.approx(0.1, rel=1e-4) and found.head_share == pytest.approx(1, abs=0.15)
    assert found.blinks_per_minute == pytest.approx(60 * 2 / 4.5)


def test_a_mouth_that_opens_once_in_a_pause_shows_where_the_mean_hides_it():
    tracks = speaking()
    assert pause_of(tracks, (2.5, 7.5), FPS).widest == pytest.approx(0.05)
    tracks["mouth_open"][80] = 0.9
    found = pause_of(tracks, (2.5, 7.5), FPS)
    assert found.opening_share < 0.15 and found.widest == pytest.approx(0.9)


def test_a_head_that_freezes_in_a_pause_shows():
    tracks = speaking()
    tracks["yaw"][40:120] = tracks["pitch"][40:120] = tracks["roll"][40:120] = 0.3
    assert pause_of(tracks, (2.5, 7.5), FPS).head_share == pytest.approx(0, abs=1e-6)


def test_silence_between_words_counts_as_speech_and_a_long_one_does_not():
    opening = torch.zeros(96)
    opening[16:24] = opening[28:36] = 0.8
    where = voiced(opening, FPS)
    assert where[16:36].all() and not where[:10].any() and not where[45:].any()


def test_a_mouth_that_follows_is_in_sync_inside_what_is_voiced_and_not_shifted():
    opening = torch.rand(400, generator=torch.Generator().manual_seed(0))
    where = torch.zeros(400, dtype=torch.bool)
    where[50:350] = True
    read = opening.clone()
    read[~where] = 0.9  # what happens in silence does not count
    r, shifted = r_inside(read, opening, where, FPS)
    assert r == pytest.approx(1) and abs(shifted) < 0.2


def test_recordings_follow_each_other_with_silence_between():
    assert len(joined([np.ones(100), np.ones(50)], 100)) == 150 + 3 * 50


def test_tracks_are_read_once_and_a_drawn_mouth_shuts_and_rests(tmp_path):
    own, seeds, silent = equipment(), (1, 2), (0.5, 1.5)
    protocols = [
        Protocol(mouth_page.CLOSURES, "4 s", lambda seed: seat(seed, 4, SIZE, tmp_path / "speech"), (TRUTH, POSE_AND_SOUND)),
        Protocol(mouth_page.PAUSE, "2 s", lambda seed: seat_with_pause(seed, 2, SIZE, silent, tmp_path / "speech"), (TRUTH,)),
    ]
    mouth.run(own, protocols, seeds, tmp_path)
    first = (tmp_path / mouth.RESULTS).read_text()
    mouth.run(own, protocols, seeds, tmp_path)
    assert (tmp_path / mouth.RESULTS).read_text() == first and first.count("\n") == 6
    closures = {seed: seat(seed, 4, SIZE, tmp_path / "speech").closures for seed in seeds}
    found = mouth_page.numbers(tmp_path, protocols, fps=FPS, closures=closures, silent=silent)
    truth = found[mouth_page.CLOSURES][TRUTH]
    assert truth["mouth shut at m, b, p"] > truth["shut 0.5 s away"] and POSE_AND_SOUND in found[mouth_page.CLOSURES]
    assert found[mouth_page.PAUSE][TRUTH]["opening, share of speech"] < 0.5
    assert "| closures: mouth shut at m, b, p |" in mouth_page.table(found)
    true = {seed: seat(seed, 4, SIZE, tmp_path / "speech").opening for seed in seeds}
    known = dict(fps=FPS, closures=closures, silent=silent, true_openings=true)
    synced = mouth_page.numbers(tmp_path, protocols, **known)[mouth_page.CLOSURES][TRUTH]
    assert synced["mouth r"] > 0.5 > abs(synced["mouth r, shifted 0.5 s"])
    other = [replace(protocol, of="another length") for protocol in protocols]
    assert mouth_page.numbers(tmp_path, other, fps=FPS, closures=closures, silent=silent) == {}


def test_idle_life_is_a_condition_of_its_own_beside_those_that_were_read_before(tmp_path):
    own, seeds = equipment(), (1, 2)

    def sits(seed):
        return seat(seed, 4, SIZE, tmp_path / "speech")

    plain = Protocol(mouth_page.CLOSURES, "4 s", sits, (TRUTH, SOUND_ONLY))
    mouth.run(own, [plain], seeds, tmp_path)
    before = (tmp_path / mouth.RESULTS).read_text()
    mouth.run(own, [replace(plain, conditions=(TRUTH, SOUND_ONLY, WITH_IDLE))], seeds, tmp_path)
    assert (tmp_path / mouth.RESULTS).read_text().startswith(before)
    tracks = mouth.tracks_of(tmp_path, mouth_page.CLOSURES, "4 s")
    assert all(not torch.equal(tracks[WITH_IDLE][seed]["yaw"], tracks[SOUND_ONLY][seed]["yaw"]) for seed in seeds)
    found = mouth_page.numbers(tmp_path, [plain], fps=FPS, closures={seed: sits(seed).closures for seed in seeds}, silent=(0.5, 1.5))
    assert WITH_IDLE in mouth_page.table(found).splitlines()[0]
