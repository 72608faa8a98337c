"""What the shell's ``mollikit`` runs: the command line, of which Ctrl-C ends even the import in one line.

It lies outside of the package, whose import takes most of a second.
"""

import sys

_INTERRUPTED = 130


def main() -> int:
    """Run the command line; 130 where Ctrl-C came before it could take care of itself."""
    try:
        from mollikit.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("mollikit: interrupted before there was anything to write", file=sys.stderr)  # noqa: T201
        return _INTERRUPTED
