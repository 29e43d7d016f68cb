"""What was recorded is done again with other numbers, and is recorded anew where it would not be the same."""

import weakref
from functools import partial

import pytest
import torch

from kf_core.model.recordings import KEPT, Form, NotRecorded, Recordings
from tests.kf_core.model.tape import Tape

CPU = torch.device("cpu")


def doubled(given, results, *, plus: float = 0.0):
    results["y"].copy_(given["x"] * 2 + plus)


class Asked:
    """Recordings of `doubled` on a tape."""

    def __init__(self, tape: Tape | None = None) -> None:
        self.tapes = []
        self.recordings = Recordings(lambda: self.tapes.append(tape or Tape()) or self.tapes[-1], CPU)

    def __call__(self, x: torch.Tensor, *, key=0, world=0, deed=doubled, fresh=()) -> torch.Tensor:
        return self.recordings.run(deed, {"x": x}, {"y": Form(x.shape, x.dtype)}, key=key, world=world, fresh=fresh)["y"]

    @property
    def counts(self) -> tuple[int, int, int]:
        return tuple(sum(getattr(tape, name) for tape in self.tapes) for name in ("rehearsed", "recorded", "repeated"))


def test_a_deed_is_rehearsed_then_recorded_then_repeated():
    asked, counts = Asked(), []
    for n in range(4):
        assert asked(torch.full((3,), float(n))).tolist() == [2.0 * n] * 3
        counts.append(asked.counts)
    assert counts == [(1, 0, 0), (1, 1, 1), (1, 1, 2), (1, 1, 3)]


def test_results_stay_where_they_are():
    asked = Asked()
    assert len({asked(torch.randn(3)).data_ptr() for _ in range(4)}) == 1


def test_a_number_of_the_hosts_is_recorded_with_it_so_it_belongs_into_the_key():
    asked, one = Asked(), torch.ones(1)
    ask = lambda plus, key: float(asked(one, deed=partial(doubled, plus=plus), key=key, fresh=("x",)))
    assert [ask(plus, "the same") for plus in (0, 10, 20)] == [2, 2, 2]
    assert [ask(plus, plus) for plus in (0, 10, 20) * 3] == [2, 12, 22] * 3


def test_another_size_is_another_recording_and_the_first_one_stays():
    asked = Asked()
    for size in (3, 5) * 3:
        assert asked(torch.ones(size)).tolist() == [2.0] * size
    assert asked.counts == (2, 2, 4) and len(asked.recordings) == 2


def test_in_another_world_everything_is_recorded_anew():
    asked = Asked()
    for world in (0, 0, 0, 1, 1, 1):
        asked(torch.ones(3), world=world)
    assert asked.counts == (2, 2, 4) and len(asked.recordings) == 1 and len(asked.tapes) == 2
    assert [tape.closed for tape in asked.tapes] == [1, 0]


def test_only_those_used_last_are_kept():
    asked = Asked()
    for key in range(3 * KEPT):
        for _ in range(2):
            asked(torch.ones(3), key=key)
            asked(torch.ones(3), key="always")
    assert len(asked.recordings) == KEPT
    before = asked.counts[1]
    asked(torch.ones(3), key="always")
    assert asked.counts[1] == before


def test_recordings_share_tensors_that_are_alike_and_let_go_of_others():
    asked = Asked()
    for key in range(5):
        asked(torch.ones(3), key=key)
    assert asked.recordings.num_bytes == 2 * 3 * 4
    for size in range(4, 4 + 2 * KEPT):
        asked(torch.ones(size))
    last = range(4 + KEPT, 4 + 2 * KEPT)
    assert asked.recordings.num_bytes == 2 * 4 * sum(last)


def test_a_tensor_that_was_copied_is_copied_again_only_where_it_may_have_changed():
    x = torch.ones(3)
    for fresh, expected in (((), 2.0), (("x",), 14.0)):
        asked = Asked()
        asked(x.fill_(1), fresh=fresh)
        assert asked(x.fill_(7), fresh=fresh).tolist() == [expected] * 3
    assert asked(torch.full((3,), 4.0)).tolist() == [8.0] * 3


def test_numbers_of_one_recording_do_not_pass_for_those_of_another():
    """They share the tensor, so what it holds is known with the tensor."""
    asked, ones, twos = Asked(), torch.ones(3), torch.full((3,), 2.0)
    for _ in range(3):
        assert asked(ones, key=1).tolist() == [2.0] * 3
        assert asked(twos, key=2).tolist() == [4.0] * 3


def test_where_one_cannot_be_recorded_all_are_let_go_and_the_reason_is_one_line():
    asked = Asked(Tape(fails=lambda recorded: recorded == 2))
    held = []
    with pytest.raises(NotRecorded, match="^operation not permitted when stream is capturing$"):
        for key in (0, 0, 1, 1, 2, 2):
            held.append(weakref.ref(asked(torch.ones(3 + key), key=key)))
    assert len(asked.recordings) == asked.recordings.num_bytes == 0
    assert asked.tapes[0].closed == 1 and not any(tensor() is not None for tensor in held)


def test_a_rehearsal_that_fails_is_no_recording():
    def fails(given, results):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(NotRecorded, match="out of memory"):
        Asked()(torch.ones(3), deed=fails)


def test_without_memory_for_the_fixed_tensors_there_is_no_recording():
    asked = Asked()
    with pytest.raises(NotRecorded, match="allocate"):
        asked(torch.ones(1).expand(2**50))
    assert asked.recordings.num_bytes == 0 and asked.counts == (0, 0, 0)


def test_what_began_in_inference_mode_goes_on_outside():
    asked = Asked()
    for mode in (True, True, False, True):
        with torch.inference_mode(mode), torch.no_grad():
            assert asked(torch.ones(3)).tolist() == [2.0] * 3


def test_a_tape_refuses_what_a_card_cannot_record():
    with pytest.raises(NotRecorded, match="cannot be recorded"):
        asked = Asked()
        for _ in range(2):
            asked(torch.ones(3), deed=lambda given, results: results["y"].fill_(float(given["x"].sum())))
