# make demo    set up, train the example jobs on real data, print the comparison
# make test    set up, then lint, type-check and run every test (what CI runs)
# make check   the same without the slow tests
# make bench   everything beside its peers, in an environment of its own; writes docs/benchmarks.md: make bench ROUNDS=7
# make bench-gpu  training on one GPU and on all, beside a bare loop and timm; writes docs/benchmarks-gpu.md; takes hours
# make site   the documentation as pages for a browser, in site/
# make chaos   kill everything at random, over and over, and compare what comes of it: make chaos SCHEDULES=100
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
BENCH  ?= .venv-bench
READY  := $(VENV)/.installed
# Tests of one file stay together: they share what takes long to make. Half of their time is waiting, for processes and
# for what times out: two for each of two cores.
AT_ONCE := -n 4 --dist loadfile --no-loadscope-reorder
# The demo has a queue of its own, so that it never runs jobs that are yours.
DEMO   := demo
SCHEDULES := 10
ROUNDS := 7
GPU_ROUNDS := 3

.PHONY: demo test check chaos bench bench-gpu lint format docs site setup clean

setup: $(READY)

# Of $(VENV) and of $(BENCH) alike.
%/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "accel-train needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	test -x $*/bin/python || $(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --upgrade pip
	$*/bin/python -m pip install --quiet --quiet -e ".[test]"
	@touch $@

# Each on its own: a peer that cannot be installed is left out, and the page says so.
$(BENCH)/.peers: $(BENCH)/.installed benchmarks/requirements.txt
	@grep -v '^#' benchmarks/requirements.txt | while read -r peer; do \
		$(BENCH)/bin/python -m pip install --quiet --quiet "$$peer" || echo "left out: $$peer"; \
	done
	@touch $@

bench: $(BENCH)/.peers
	$(BENCH)/bin/python benchmarks/run.py --rounds $(ROUNDS)

# Without a GPU it says so, with exit code 2.
bench-gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py --rounds $(GPU_ROUNDS)

demo: $(READY)
	mkdir -p $(DEMO)/training_queue
	cd $(DEMO) && ../$(BIN)/accel-train add --force ../training_queue/examples/*.json
	cd $(DEMO) && ../$(BIN)/accel-train run-queue
	cd $(DEMO) && ../$(BIN)/accel-train compare models/*/*

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/pytest $(AT_ONCE) -m "not slow"

test: lint
	$(BIN)/pytest $(AT_ONCE) --durations=20

chaos: $(READY)
	$(BIN)/pytest tests/faults/test_every_event.py --every-event
	ACCEL_TRAIN_THOROUGH_TESTS=1 $(BIN)/pytest tests/queue/test_many_runners.py tests/queue/test_moves*.py
	ACCEL_TRAIN_THOROUGH_TESTS=1 $(BIN)/pytest tests/network/test_runner_races.py tests/network/test_verb_storm.py
	$(BIN)/python tests/faults/chaos.py --schedules $(SCHEDULES) --jobs 2
	$(BIN)/python tests/faults/cut_offs.py --drive worst_fs --cuts 100
	$(BIN)/python tests/faults/cut_offs.py --drive sshfs --cuts 100

site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "made site/index.html"

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/accel-train schema --output docs/job.schema.json
	$(BIN)/python -m accel_trainer.config.schema docs/parameters.md
	$(BIN)/python -m tests.rooms_contract docs/internals.md
	$(BIN)/python -m tests.doubts_list docs/training.md
	$(BIN)/python docs/draw_pictures.py
	$(BIN)/python docs/draw_terminal.py
	PYTHONPATH=tests $(BIN)/python -m report.page.picture docs/pictures/compare-page.webp

clean:
	rm -rf $(VENV) $(BENCH) $(DEMO) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
