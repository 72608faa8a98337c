.PHONY: demo test test-full lint bench clean
PYTHON ?= python3

# Two environments on purpose: the demo's holds no deep-learning framework.
.venv/ready: pyproject.toml mollikit/_version.py
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --upgrade "pip>=25.1"
	.venv/bin/python -m pip install -q --group frameworks
	.venv/bin/python -m pip install -q -e ".[onnx-gpu]" --group lint --group test
	touch $@

.venv-demo/ready: pyproject.toml mollikit/_version.py
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install -q --upgrade "pip>=25.1"
	.venv-demo/bin/python -m pip install -q -e ".[demo]"
	touch $@

demo: .venv-demo/ready
	.venv-demo/bin/python examples/demo.py

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: lint
	.venv/bin/python -m pytest -n auto --dist loadfile

test-full: lint
	.venv/bin/python -m pytest -n auto --dist loadfile --full

clean:
	rm -rf .venv .venv-demo demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis
