"""What the commands of a device make of arguments that make no sense: one line, and exit code 2."""

import pytest
from kfcn_mobile import serve, validate
from kfcn_mobile.console import number


@pytest.mark.parametrize(
    ("command", "args", "told"),
    [
        (serve, ["NET", "--port", "abc"],
         "--port: received 'abc'; expected a whole number of at least 0 and at most 65535"),
        (serve, ["NET", "--port", "65536"], "--port: received '65536'; expected a whole number"),
        (serve, ["NET", "--moon"], "unrecognized arguments: --moon"),
        (serve, [], "the following arguments are required: NET"),
        (serve, [""], "received an empty argument"),
        (validate, [], "the following arguments are required: BUNDLE"),
        (validate, ["x", "--mode", "int4"], "--mode: received 'int4'; expected one of "),
        (validate, ["x", "--min-image", "2"],
         "--min-image: received '2'; expected a number of at least 0 and at most 1"),
        (validate, ["x", "--min-image", "nan"], "--min-image: received 'nan'; expected a number"),
        (validate, ["x", "--threads", "0"], "--threads: received '0'; expected a whole number of"),
        (validate, ["x", "--runs", "-1"], "--runs: received '-1'; expected a whole number of at"),
        (validate, ["x", "--warmup", "9" * 5000], "--warmup: received '999"),
    ],
)  # fmt: skip
def test_errors_are_one_line(command, args, told, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(args)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and told in said
    assert said.count("\n") == 1 and len(said) < 300
    assert said.startswith(f"kfcn-{command.__name__.rpartition('.')[2]}: error: ")
    assert "--help lists all arguments" in said


def test_numbers_within_their_bounds_are_read():
    assert [number(int, 0, 9)(text) for text in ("0", "9")] == [0, 9]
    assert [number(float, 0, 1)(text) for text in ("0", "0.5", "1")] == [0, 0.5, 1]
    assert isinstance(number(int, 1)("12"), int)
