"""The same tests where the host has a graphics card of its own, with room for the models and without any."""

import os
import subprocess
import sys

import pytest

from ..pretend_card import skip_where_it_cannot_be_built
from .place import PACK

CHOSEN = (
    "test_streams.py::test_the_graph_makes_as_many_frames_and_as_much_sound_as_the_voice_lasts",
    "test_encoders.py::test_livetalk_speaks_with_the_sound_it_hears",
    "test_encoders.py::test_what_the_script_says_is_read_by_the_hosts_umt5",
)


@pytest.mark.slow
@pytest.mark.parametrize("whole", ["1", "0"], ids=["with room", "without room"])
def test_a_host_with_a_card_draws_hears_and_reads(host, whole):
    skip_where_it_cannot_be_built()
    words = [sys.executable, "-m", "pytest", "-q", "-p", "tests.pretend_card.host", *(f"tests/host/{test}" for test in CHOSEN)]
    done = subprocess.run(words, cwd=PACK, env=os.environ | {"KF_CARD_WHOLE": whole}, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-5000:]
    said = next(line for line in done.stdout.splitlines() if "operations on the pretend card" in line)
    assert int(said.split()[0]) > 1000
