"""What tools/generate.py writes is current, and a limit stands nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgevit import limits
from edgevit.data.images import Preprocessing, check_labels
from edgevit.errors import InputError
from tools.generate import ROOT, generated, read_limits


@pytest.mark.parametrize("path", generated(), ids=str)
def test_the_file_is_what_the_generator_writes(path: Path) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == generated()[path], (
        f"{path} is not current: .venv/bin/python -m tools.generate"
    )


def test_every_limit_has_a_value_and_a_sentence() -> None:
    found = list(read_limits())
    assert {each.name for each in found} == {name for name in vars(limits) if name.isupper()}
    assert all(each.value > 0 and each.meaning.endswith(".") for each in found)


def test_no_limit_is_defined_a_second_time() -> None:
    """A constant of a limit's name has its value from edgevit/limits.py or what is made of it."""
    names = {each.name for each in read_limits()}
    names |= {"k" + each.title().replace("_", "") for each in names}
    definition = re.compile(rf"^[\w\s:<>]*\b({'|'.join(sorted(names))})\b\s*=[^=]", re.MULTILINE)
    own = {Path("edgevit/limits.py"), *generated()}
    sources = [
        path
        for folder in ("edgevit", "targets")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".cpp", ".h", ".mm"} and path.relative_to(ROOT) not in own
    ]
    assert len(sources) > 100
    wrong = [
        f"{path.relative_to(ROOT)}: {match[1]}"
        for path in sources
        for match in definition.finditer(path.read_text(encoding="utf-8"))
    ]
    assert wrong == []


def test_a_resize_that_the_harness_refuses_is_refused_before_the_training() -> None:
    assert Preprocessing(64, limits.MAX_RESIZE_SIZE).resize_size == limits.MAX_RESIZE_SIZE
    with pytest.raises(InputError, match="resize_size is 16385, it must be 1 to 16384 pixels"):
        Preprocessing(64, limits.MAX_RESIZE_SIZE + 1)
    with pytest.raises(InputError, match="image_size is 4097, it must be 1 to 4096 pixels"):
        Preprocessing(limits.MAX_IMAGE_SIZE + 1)


def test_a_thin_image_is_refused_as_the_harness_refuses_it() -> None:
    from PIL import Image

    with pytest.raises(InputError, match="too thin to resize: its sides are 4000000x1"):
        Preprocessing(16, 16).crop(Image.new("RGB", (4_000_000, 1)))


def test_a_label_that_no_artifact_could_hold_is_refused_with_the_images() -> None:
    check_labels(["x" * limits.MAX_LABEL_BYTES])
    with pytest.raises(InputError, match=r"the label 'ééé.*'\.\.\. has over 4096 bytes"):
        check_labels(["a", "é" * limits.MAX_LABEL_BYTES])
    with pytest.raises(InputError, match="holds a zero byte"):
        check_labels(["a\0b"])
