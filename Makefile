# Every target works from a bare clone; a second run skips what is done.
PYTHON ?= python3

.PHONY: demo ui test lint install cuda bench clean

demo:     ## install, then make a text with the starter model
	$(PYTHON) scripts/bootstrap.py demo

ui: install  ## open the page in the browser
	.venv/bin/studio ui $(ARGS)

test:     ## install, then run all tests (make test ARGS="-k queue")
	$(PYTHON) scripts/bootstrap.py test $(ARGS)

lint:     ## ruff, mypy --strict, import-linter
	$(PYTHON) scripts/bootstrap.py lint

install:  ## only make .venv
	$(PYTHON) scripts/bootstrap.py install

cuda:     ## build llama.cpp again for an NVIDIA card
	$(PYTHON) scripts/bootstrap.py cuda

bench: install  ## measure the engine's own cost, written to benchmarks/
	.venv/bin/python scripts/bench_core.py

clean:    ## remove the environment and the tests' models
	rm -rf .venv .cache
