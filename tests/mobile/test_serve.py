"""kfcn-serve as a command: wrong requests are one line."""

import socket

import pytest
from kfcn_mobile.serve import main
from shipping import tiny_bundle


def test_what_is_for_serving_is_refused_where_a_site_is_written(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tiny_bundle()), "--write", str(tmp_path / "out"), "--port", "9"])
    assert "--port and --host are for serving" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_bundle_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "bundle.json: no such file" in capsys.readouterr().err
    assert main(["x" * 300]) == 1
    told = capsys.readouterr().err
    assert "File name too long" in told and "port" not in told and told.count("\n") == 1


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".org"])
def test_a_host_that_is_no_name_is_one_line(bundle, litert, capsys, host):
    assert main([str(bundle), "--host", host, "--port", "0"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"kfcn-serve: error: {host}, port 0: ")


def test_a_port_that_is_taken_is_one_line_with_what_to_do(bundle, litert, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main([str(bundle), "--port", str(port)]) == 1
    assert capsys.readouterr().err == (
        f"kfcn-serve: error: port {port} of 127.0.0.1 is taken by another program, or by another "
        "kfcn-serve: choose another with --port, or any free one with --port 0\n"
    )
