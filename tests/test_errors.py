"""What is said of an error that says nothing."""

import pytest

from ivra.errors import first_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one"), "one"),
        (ValueError("\n  one  \ntwo"), "one"),
        (OSError(28, "No space left"), "[Errno 28] No space left"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError(""), "RuntimeError"),
        (OSError(" \n\t\n"), "OSError"),
        (KeyError("a\nb"), "'a\\nb'"),
    ],
)
def test_first_line(error: BaseException, expected: str) -> None:
    assert first_line(error) == expected
