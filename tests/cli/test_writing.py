"""The output folder is written whole or not at all."""

import json
import os
import stat
from pathlib import Path

import pytest

from mollikit.cli.writing import TOOL, whole_folder


def fill(folder, name="x"):
    (folder / f"{name}.npz").write_bytes(b"arrays")
    (folder / f"{name}.json").write_text(json.dumps({"tool": TOOL, "files": [f"{name}.npz", f"{name}.json"]}))


def write(out, name="x", *, replace=False, then=lambda: None):
    with whole_folder(out, replace=replace) as folder:
        fill(folder, name)
        then()


def fail_with(error):
    def fail():
        raise error

    return fail


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_appears_at_the_end(tmp_path):
    with whole_folder(tmp_path / "out", replace=False) as folder:
        fill(folder)
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["x.json", "x.npz"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["x.json", "x.npz"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("replace", [False, True])
def test_a_failure_leaves_everything_as_it_was(tmp_path, error, replace):
    out = tmp_path / "out"
    if replace:
        write(out, "earlier")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error):
        write(out, replace=replace, then=fail_with(error))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_earlier_run_is_replaced_as_a_whole(tmp_path):
    write(tmp_path / "out", "earlier")
    write(tmp_path / "out", "later", replace=True)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["later.json", "later.npz"]


def test_an_earlier_run_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    write(tmp_path / "out", "earlier")
    rename = Path.rename

    def fail_for_the_new(self, target):
        if self.name.startswith(".out.") and (self / "later.json").exists():
            raise OSError("no space")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path / "out", "later", replace=True)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["earlier.json", "earlier.npz"]


@pytest.mark.parametrize("foreign", ["notes.txt", "y.npz", "a folder"])
def test_what_it_did_not_write_is_never_deleted(tmp_path, foreign):
    write(tmp_path / "out")
    (tmp_path / "out" / foreign).mkdir()
    with pytest.raises(OSError, match=foreign):
        write(tmp_path / "out", "later", replace=True)
    assert foreign in names(tmp_path / "out")


def test_a_file_that_appears_during_the_run_is_never_deleted(tmp_path):
    def appear():
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").touch()

    with pytest.raises(OSError, match="not empty"):
        write(tmp_path / "out", then=appear)
    assert names(tmp_path / "out") == ["mine"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    write(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert names(tmp_path / "real") == ["x.json", "x.npz"]


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_others_may_read_it_as_any_new_folder(tmp_path):
    (tmp_path / "usual").mkdir()
    write(tmp_path / "out")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "out")]
    assert modes[0] == modes[1]
