.PHONY: setup fix check test slow sanitize bench docs pictures

setup:  ## a virtual environment for developing, with all but what the site takes
	python3 -m venv .venv && . .venv/bin/activate && pip install -e ".[test]" -e "plugins/mir_l[test]"

fix:  ## format, and mend what ruff can mend
	ruff check --fix . ; ruff format .

check:  ## exactly what CI runs besides the tests
	ruff check .
	ruff format --check .
	mypy
	lint-imports

test:
	pytest

slow:  ## kills, processes, compilers: minutes
	pytest -m slow

sanitize:  ## the kernels' tests with the address and undefined behaviour sanitizers
	tests/sanitize

bench:  ## by hand: ratios, not verdicts
	python tests/benchmarks/prune_speed.py
	python tests/benchmarks/hold_overhead.py
	python tests/benchmarks/promptir_speed.py
	python tests/benchmarks/loader_speed.py
	python tests/benchmarks/ticket_files.py

docs:  ## the site, strictly; needs: pip install -e ".[docs]" -e plugins/mir_l
	python docs/tools/build.py

pictures:  ## of the documentation: the drawings and, with RUN=, what a finished run of mir_l or a study shows
	python docs/tools/pictures.py $(RUN)
