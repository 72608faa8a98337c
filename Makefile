.PHONY: demo test test-full lint bench clean
PYTHON ?= python3

# Two environments on purpose: the demo's holds no deep-learning framework.
.venv/ready: pyproject.toml mollikit/_version.py
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --upgrade "pip>=25.1"
	.venv/bin/python -m pip install -q --group frameworks
	.venv/bin/python -m pip install -q -e ".[onnx-gpu]" --group lint --group test
	# One network in two frameworks; its own requirements name a TensorFlow that is too old for this Python.
	.venv/bin/python -m pip install -q --no-deps basic-pitch==0.4.0 tf_keras==2.21.0
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
