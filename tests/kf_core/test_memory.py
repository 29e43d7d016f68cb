import platform

import pytest
import torch

from kf_core.memory import give_back, held, resident

MIB = 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked for its free pages; run it on Linux")
def test_what_was_freed_in_pieces_is_given_back():
    pieces = [torch.ones(2**13) for _ in range(3000)]  # 94 MiB, each too small to be returned by itself
    kept = pieces[::100]  # hold the pages between them
    give_back()
    before = resident()
    del pieces
    give_back()
    assert before - resident() > 60 * MIB and len(kept) == 30


def test_what_is_held_is_seen():
    before = held()
    kept = torch.ones(8 * MIB)  # 32 MiB
    assert 24 * MIB < held() - before < 64 * MIB and kept[0] == 1
