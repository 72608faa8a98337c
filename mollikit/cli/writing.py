from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOOL = "mollikit"


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no Ctrl-C disturb the writing of what an interrupted run had computed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def whole_folder(out: Path, *, replace: bool) -> Iterator[Path]:
    """Give a new folder beside ``out`` that takes its place when the block ends well, and vanishes otherwise.

    Parameters
    ----------
    out : Path
        The folder to be; its parent exists.
    replace : bool
        Whether a folder that an earlier run wrote may be replaced. Any other is never touched.

    Raises
    ------
    OSError
        If there is something at ``out`` that must not be replaced, or it cannot be written.
    """
    # A link stays a link: the folder that it names is replaced.
    target = Path(os.path.realpath(out))
    _check(out, target, replace)
    try:
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise OSError(f"--out {str(out)!r} cannot be written: {error.strerror}") from error
    try:
        yield folder
        _check(out, target, replace)
        # mkdtemp makes folders that only the owner may enter; give the mode that mkdir would have given.
        mask = os.umask(0)
        os.umask(mask)
        folder.chmod(0o777 & ~mask)
        _put(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check(out: Path, target: Path, replace: bool) -> None:
    if not target.parent.is_dir():
        raise OSError(f"--out {str(out)!r}: the folder {str(out.parent)!r} does not exist: make it first")
    if not target.exists():
        return
    if not target.is_dir():
        raise OSError(f"--out {str(out)!r} is a file: name a folder")
    entries = {path.name for path in target.iterdir()}
    if not entries:
        return
    if not replace:
        raise OSError(
            f"--out {str(out)!r} is not empty: name another folder, or give --force if an earlier run wrote "
            "it"
        )
    if foreign := sorted(entries - _written(target)):
        raise OSError(
            f"--out {str(out)!r} holds what mollikit did not write ({', '.join(foreign[:3])}), and --force "
            "would delete it: name another folder"
        )


def _written(folder: Path) -> set[str]:
    """Names of the files that runs of this tool wrote into a folder, as their records tell."""
    names: set[str] = set()
    for path in folder.glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and str(record.get("tool", "")).startswith(TOOL):
            names.update(record["files"])
    return names


def _put(folder: Path, target: Path) -> None:
    if not target.exists():
        folder.rename(target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
    target.rename(old / target.name)
    try:
        folder.rename(target)
    except BaseException:
        (old / target.name).rename(target)
        old.rmdir()
        raise
    shutil.rmtree(old)
