from __future__ import annotations

from pathlib import Path

import pytest

from modbot.errors import InputError
from modbot.files.yaml_files import MAX_NUMBER, NotYamlError, load_yaml, read_yaml


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: !!python/name:os.system",
        "a: !!bool maybe",
        "a: !!int ''",
        "a: !!float ''",
        "a: !!timestamp now",
        "a: 2025-99-99",
        "a: !!float &b {? !!value x : *b}",
        "a: 1" + ":1" * 300 + ".5",
        "[" * 5000 + "]" * 5000,
        "\xff",
        "\x00",
    ],
)
def test_whatever_is_no_yaml_is_told_in_one_line(text: str) -> None:
    with pytest.raises(NotYamlError) as caught:
        load_yaml(text.encode("latin-1"))
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 200


@pytest.mark.parametrize("digits", [":1" * MAX_NUMBER, "0" * MAX_NUMBER, ":1" * MAX_NUMBER + ".5"])
def test_a_number_that_takes_long_to_work_out_is_refused(digits: str) -> None:
    with pytest.raises(NotYamlError, match="a number of more than 1000 characters"):
        load_yaml(f"a: 1{digits}".encode())


def test_numbers_are_read_as_yaml_writes_them() -> None:
    assert load_yaml(b"[1, -2, 0x1f, 1:30, 1_000, 0.5, 1:30.5, .inf]") == [1, -2, 31, 90, 1000, 0.5, 90.5, float("inf")]


def test_a_file_of_the_largest_size_is_read_and_a_larger_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: b #".ljust(1024**2, b"-"))
    assert read_yaml(path, 1024**2) == {"a": "b"}
    path.write_bytes(path.read_bytes() + b"-")
    with pytest.raises(InputError, match="larger than 1 MiB"):
        read_yaml(path, 1024**2)
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path, 1024**2)
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "b.yaml", 1024**2)
