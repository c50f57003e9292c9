"""The words that messages are put together from."""

import pytest

from kfcn.errors import counted


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ("picture",), "0 pictures"),
        (1, ("picture",), "1 picture"),
        (2, ("picture",), "2 pictures"),
        (1, ("image is", "images are"), "1 image is"),
        (3, ("class", "classes"), "3 classes"),
    ],
)
def test_what_is_counted_stands_in_its_number(number, words, expected):
    assert counted(number, *words) == expected
