"""``mollikit`` as the shell starts it: Ctrl-C ends it in one line, however early."""

import os
import signal
import subprocess
import sys
import time

import pytest

# As the script that is installed does it; a shell's background job ignores SIGINT, here it counts.
PROGRAM = (
    "import signal, sys\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from mollikit_command import main\n"
    "sys.exit(main())\n"
)


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.3])
def test_ctrl_c_while_it_is_imported(delay):
    # An import of half a minute stands for a slow disk, and tells of itself, so that the moment is inside.
    slow = (
        "import sys, time\nclass Slow:\n def find_spec(self, name, *_):\n"
        "  if name == 'numpy': print('started', flush=True); time.sleep(30)\n"
    )
    program = f"{slow}sys.meta_path.insert(0, Slow())\n{PROGRAM}"
    run = subprocess.Popen(
        [sys.executable, "-c", program, "kernels"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout.readline() == "started\n"
    time.sleep(delay)
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 130
    assert told == "mollikit: interrupted before there was anything to write\n"


def test_it_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--version"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0
    assert "mollikit" in done.stdout
