import hashlib
import os

import pytest

from edgevit.errors import EdgevitError, InputError
from edgevit.files import atomic_path, check_target, sha256_file


def _write_folder(path, text="new", marker="manifest.json"):
    path.mkdir()
    (path / marker).write_text(text)


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
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "out", force=True) as temporary:
        _write_folder(temporary)
        raise RuntimeError
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out" / "manifest.json").read_text() == "old"


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


def test_a_folder_of_ours_is_replaced_by_force(tmp_path):
    _write_folder(tmp_path / "out", "old")
    (tmp_path / "out" / "leftover").touch()
    with atomic_path(tmp_path / "out", force=True) as temporary:
        _write_folder(temporary)
    assert os.listdir(tmp_path / "out") == ["manifest.json"]
    assert (tmp_path / "out" / "manifest.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_of_another_kind_is_never_replaced(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").touch()
    with (
        pytest.raises(InputError, match="not written by edgevit"),
        atomic_path(home, force=True) as temporary,
    ):
        _write_folder(temporary)
    assert os.listdir(home) == ["thesis.tex"]
    assert os.listdir(tmp_path) == ["home"]


def test_a_file_replaces_no_folder_and_a_folder_no_file(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    with pytest.raises(InputError, match="is a folder"), atomic_path(folder, True) as temporary:
        temporary.touch()
    with pytest.raises(InputError, match="is a file"), atomic_path(file, True) as temporary:
        temporary.mkdir()
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


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
