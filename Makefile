# Two commands: `make book` and `make test`. Everything they need goes into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export OMP_NUM_THREADS = 1
export TQDM_DISABLE = 1
# Figures depend on nobody's matplotlibrc, and on no list of fonts that another program left.
export MPLCONFIGDIR := $(abspath $(VENV))/.matplotlib
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check

.PHONY: book test serve notebooks zoo records bench clean
book: $(STAMP)
	$(BIN)/python tools/prefill.py
	$(BIN)/jupyter-book build --all -W --keep-going .

test: book
	$(BIN)/python -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadfile chapters solutions exercises
	$(BIN)/python -m pytest -q -m alone
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not alone$(if $(LONG),, and not long)"
	$(BIN)/pre-commit run --all-files

serve: book
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

notebooks: $(STAMP)
	$(BIN)/python tools/notebooks.py

zoo: $(STAMP)
	$(BIN)/python -m robcourse.zoo $(ONLY)

records: export ROBCOURSE_PROFILE = full
records: $(STAMP)
	$(BIN)/python -m robcourse.zoo.experiments $(ONLY)

bench: $(STAMP)
	$(BIN)/python tools/bench.py

clean:
	rm -rf _build

$(STAMP): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	$(PIP) --no-deps -e .
	$(BIN)/python -c "import matplotlib.pyplot" # lists the fonts, which no cell is to tell of
	touch $@
