# For those who have make; `python develop.py` does the same everywhere.
PYTHON ?= python3

.PHONY: demo test lint setup
demo test lint setup:
	$(PYTHON) develop.py $@
