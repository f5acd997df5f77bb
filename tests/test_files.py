import hashlib
import os
import socket
import stat
import subprocess
import sys

import pytest

from edgevit import files
from edgevit.errors import EdgevitError, InputError
from edgevit.files import (
    atomic_path,
    check_target,
    open_file,
    read_file,
    remove_written,
    sha256_file,
)


def _write_folder(path, text="new"):
    path.mkdir()
    (path / "ours").write_text(text)


def _replacing(path):
    return atomic_path(path, True, listing=lambda folder: ["ours"])


def _replace(path, put):
    path.unlink()
    put(path)


def _python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_sha256_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256_file(path) == hashlib.sha256(b"abc").hexdigest()


def test_sha256_of_a_missing_file_names_it(tmp_path):
    with pytest.raises(InputError, match=r"gone.*No such file"):
        sha256_file(tmp_path / "gone")


def test_a_file_appears_whole_under_missing_folders(tmp_path):
    path = tmp_path / "new" / "deep" / "out.bin"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"1")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_bytes() == b"1"
    assert os.listdir(path.parent) == ["out.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_stays_behind_an_exception(tmp_path, error):
    with pytest.raises(error), atomic_path(tmp_path / "new" / "out.bin") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert os.listdir(tmp_path) == []


def test_no_folder_stays_behind_an_exception_and_the_old_one_is_kept(tmp_path):
    _write_folder(tmp_path / "out", "old")
    with pytest.raises(RuntimeError), _replacing(tmp_path / "out") as temporary:
        _write_folder(temporary)
        raise RuntimeError
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out" / "ours").read_text() == "old"


def test_an_existing_file_is_replaced_only_by_force(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="--force"), atomic_path(path):
        pytest.fail("the body must not run")
    with atomic_path(path, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out.bin"]


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "out.bin"
    with pytest.raises(InputError, match="exists already"), atomic_path(path) as temporary:
        temporary.write_bytes(b"mine")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("one_step", [True, False])
def test_a_folder_of_ours_is_replaced_by_force(tmp_path, monkeypatch, one_step):
    if not one_step:
        monkeypatch.setattr(files, "exchange", lambda first, second: False)
    _write_folder(tmp_path / "out", "old")
    with _replacing(tmp_path / "out") as temporary:
        _write_folder(temporary)
    assert os.listdir(tmp_path / "out") == ["ours"]
    assert (tmp_path / "out" / "ours").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "put",
    [
        lambda folder: (folder / "thesis.tex").touch(),
        lambda folder: (folder / "empty").mkdir(),
        lambda folder: os.mkfifo(folder / "pipe"),
        lambda folder: (folder / "link").symlink_to("ours"),
        lambda folder: (folder / "sub").symlink_to("/"),
        lambda folder: _replace(folder / "ours", lambda path: path.symlink_to("/etc/passwd")),
        lambda folder: _replace(folder / "ours", lambda path: path.mkdir()),
    ],
    ids=["file", "folder", "fifo", "link", "link-to-folder", "ours-is-a-link", "ours-is-a-folder"],
)
def test_a_folder_that_holds_anything_else_is_never_replaced(tmp_path, put):
    folder = tmp_path / "out"
    _write_folder(folder, "old")
    put(folder)
    before = sorted(os.listdir(folder))
    with pytest.raises(InputError, match="not written by edgevit"), _replacing(folder):
        pytest.fail("the body must not run")
    assert sorted(os.listdir(folder)) == before
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_comes_into_a_folder_meanwhile_is_kept(tmp_path):
    folder = tmp_path / "out"
    _write_folder(folder, "old")
    with pytest.raises(InputError, match="thesis.tex"), _replacing(folder) as temporary:
        _write_folder(temporary)
        (folder / "thesis.tex").touch()
    assert sorted(os.listdir(folder)) == ["ours", "thesis.tex"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_replaces_no_folder_and_a_folder_no_file(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    with pytest.raises(InputError, match="is a folder"), atomic_path(folder, True):
        pytest.fail("the body must not run")
    with pytest.raises(InputError, match="is a file"), _replacing(file):
        pytest.fail("the body must not run")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def _special(kind, path):
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    elif kind == "dangling":
        path.symlink_to("nowhere")
    else:
        path.with_name("target").write_text("precious")
        path.symlink_to("target")


SPECIAL = ["fifo", "socket", "dangling", "link", *(["device"] if os.geteuid() == 0 else [])]


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("listing", [None, lambda folder: ["ours"]], ids=["file", "folder"])
def test_what_is_no_plain_file_or_folder_is_never_replaced(tmp_path, kind, listing):
    path = tmp_path / "out"
    try:
        _special(kind, path)
    except PermissionError:
        pytest.skip("no devices may be made here")
    before = path.lstat()
    for force in (True, False):
        with pytest.raises(InputError), atomic_path(path, force, listing=listing):
            pytest.fail("the body must not run")
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    if kind == "link":
        assert (tmp_path / "target").read_text() == "precious"


@pytest.mark.parametrize("kind", [kind for kind in SPECIAL if kind != "link"])
def test_reading_takes_plain_files_only_and_never_waits(tmp_path, kind):
    path = tmp_path / "in"
    try:
        _special(kind, path)
    except PermissionError:
        pytest.skip("no devices may be made here")
    for read in (sha256_file, open_file, lambda each: read_file(each, 10)):
        with pytest.raises(InputError, match="in"):
            read(path)


def test_reading_stops_at_the_limit(tmp_path):
    path = tmp_path / "in"
    path.write_bytes(b"0123456789")
    assert read_file(path, 10) == b"0123456789"
    with pytest.raises(InputError, match="in is too large for a leaf: over 9 bytes"):
        read_file(path, 9, "a leaf")
    with pytest.raises(InputError, match="is a folder"):
        read_file(tmp_path, 9)
    with pytest.raises(InputError, match="NUL"):
        read_file("a\0b", 9)


@pytest.mark.parametrize("path", ["/", "a\0b", "n" * 256, "é" * 128])
@pytest.mark.parametrize("listing", [None, lambda folder: ["ours"]], ids=["file", "folder"])
def test_names_that_no_output_can_have_are_refused(tmp_path, monkeypatch, path, listing):
    monkeypatch.chdir(tmp_path)
    for force in (True, False):
        with pytest.raises(InputError), atomic_path(path, force, listing=listing):
            pytest.fail("the body must not run")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, os.fsdecode(b"\xff" * 250)])
def test_names_of_any_length_that_a_file_may_have_are_written(tmp_path, name):
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_bytes(b"1")
    assert os.listdir(tmp_path) == [name]


def test_a_full_disk_is_named_and_nothing_stays(tmp_path):
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from edgevit.files import atomic_path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with atomic_path(sys.argv[1]) as temporary: temporary.write_bytes(bytes(2000))\n"
    )
    done = _python(code, str(tmp_path / "out"))
    assert "InputError" in done.stderr and "out cannot be written: File too large" in done.stderr
    assert os.listdir(tmp_path) == []


def test_outputs_have_the_mode_that_the_umask_leaves(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_bytes(b"1")
        with atomic_path(tmp_path / "b") as temporary:
            _write_folder(temporary)
    finally:
        os.umask(old)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "b")]
    assert modes == [0o640, 0o750]


KILLED = """
import os, sys
from pathlib import Path
from edgevit import files
where, at = Path(sys.argv[1]), sys.argv[2]
def die(*_): os.kill(os.getpid(), 9)
if at == "swap":
    files.exchange = lambda first, second: False
    rename = Path.rename
    Path.rename = lambda path, new: die() if path.suffix == ".tmp" else rename(path, new)
if at == "removal":
    files.shutil.rmtree = die
with files.atomic_path(where, True, listing=lambda folder: ["ours"]) as temporary:
    temporary.mkdir()
    (temporary / "ours").write_text("new")
    if at == "writing": die()
"""


@pytest.mark.parametrize("at", ["writing", "swap", "removal"])
def test_a_kill_loses_no_output_and_the_next_run_puts_all_right(tmp_path, at):
    path = tmp_path / "out"
    _write_folder(path, "old")
    (tmp_path / ".out.notes.tmp").touch()
    assert _python(KILLED, str(path), at).returncode == -9
    assert len(os.listdir(tmp_path)) >= (4 if at == "swap" else 3) - (at == "swap")
    with pytest.raises(InputError, match="exists already"):
        check_target(path)
    expected = "new" if at == "removal" else "old"
    assert (path / "ours").read_text() == expected
    assert sorted(os.listdir(tmp_path)) == [".out.notes.tmp", "out"]


def test_the_hidden_name_of_a_process_that_lives_is_left_alone(tmp_path):
    with atomic_path(tmp_path / "out") as first:
        first.write_bytes(b"1")
        check_target(tmp_path / "out")
        assert first.exists()
        parent = tmp_path / f".out.{os.getppid()}.00000000.tmp"
        parent.touch()
        reused = tmp_path / f".out.{os.getpid()}.00000000.tmp"
        reused.touch()
        check_target(tmp_path / "out")
        assert parent.exists() and not reused.exists()
        parent.unlink()
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_loses_what_is_ours_and_nothing_else(tmp_path):
    folder = tmp_path / "out"
    _write_folder(folder)
    (folder / "sub").mkdir()
    (folder / "sub" / "ours").touch()
    assert not remove_written(folder, ["ours"])
    assert (folder / "sub" / "ours").exists() and not (folder / "ours").exists()
    assert remove_written(folder, ["ours", "sub/ours"])
    assert os.listdir(tmp_path) == []


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(EdgevitError, match="nothing was written"), atomic_path(tmp_path / "out"):
        pass


def test_a_target_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        check_target(tmp_path / "file" / "out.bin")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        check_target(tmp_path / "out.bin")
