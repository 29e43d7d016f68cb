"""`python -m tests.pretend_card MODULE WORDS`: what `python -m MODULE WORDS` does, in a process that has the pretend card."""

import runpy
import sys

from . import plug_in

plug_in()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
