"""kfcn-serve: nets in the browser, with the page of `web/`."""

import argparse
import errno
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kfcn_mobile.bundle import BundleError
from kfcn_mobile.console import Parser, number, print_any_letters
from kfcn_mobile.errors import MissingError
from kfcn_mobile.outputs import OutputError, WriteError, check_new, which_and_why
from kfcn_mobile.server import Server
from kfcn_mobile.site import Site, make_site, read_net, write_site


def parser(shipped: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The arguments of `kfcn-serve`.

    Args:
        shipped: names of nets that can be given in the place of a folder.
    """
    names = f", or one of {', '.join(shipped)}; default: those" if shipped else ""
    parser = Parser(
        prog="kfcn-serve",
        description="Show nets in the browser: what is where in a picture or in front of the "
        "camera.",
    )
    parser.add_argument(
        "nets",
        metavar="NET",
        nargs="*" if shipped else "+",
        help=f"folder that kfcn-convert wrote{names}",
    )
    port = number(int, 0, 65535)
    parser.add_argument(
        "--port", type=port, metavar="N", help="port to serve on; 0: any free one (default 8000)"
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        help="name or address at which other machines reach this one, or 0.0.0.0; by default only "
        "this machine reaches it",
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="DIR",
        help="write the site for a static host instead of serving it",
    )
    return parser


def main(argv: Sequence[str] | None = None, shipped: Mapping[str, Path] | None = None) -> int:
    """The command `kfcn-serve`.

    Args:
        argv: its arguments.
        shipped: folders of nets that have a name.
    """
    print_any_letters()
    shipped = shipped or {}
    cli = parser(list(shipped))
    args = cli.parse_args(argv)
    if args.write and (args.port, args.host) != (None, None):
        cli.error("--port and --host are for serving; --write serves nothing")
    try:
        folders = [_folder(name, shipped) for name in args.nets] or list(shipped.values())
        nets = [read_net(folder) for folder in folders]
        if args.write:
            check_new(args.write)  # before anything is fetched
        site = make_site(nets, lambda line: print(line, file=sys.stderr))
        if args.write:
            write_site(site, args.write, folders)
            print(f"wrote {args.write}; any static host over https serves it")
            return 0
        return _serve(site, args.host or "127.0.0.1", 8000 if args.port is None else args.port)
    except (BundleError, MissingError, OutputError) as error:
        print(f"kfcn-serve: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, WriteError) else 2
    except OSError as error:
        print(f"kfcn-serve: error: {which_and_why(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _serve(site: Site, host: str, port: int) -> int:
    """Serves a site until Ctrl-C; an exit code where that cannot begin."""
    try:
        server = Server(site, port, host)
    except (OSError, UnicodeError) as error:  # the latter of a name that is none
        told = f"{host}, port {port}: {error}"
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            told = (
                f"port {port} of {host} is taken by another program, or by another kfcn-serve: "
                "choose another with --port, or any free one with --port 0"
            )
        print(f"kfcn-serve: error: {told}", file=sys.stderr)
        return 1
    with server:
        print(f"{server.url} (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0


def _folder(name: str, shipped: Mapping[str, Path]) -> Path:
    here = Path(name)
    holds_a_net = (here / "bundle.json").exists() or (here / "model.json").exists()
    if here.is_dir() and (holds_a_net or name not in shipped):
        return here  # a folder of results of that name is no net: the one that ships is meant
    if name not in shipped:
        expected = ", ".join(["a folder that kfcn-convert wrote", *shipped])
        raise BundleError(f"{name}: no such folder; expected one of: {expected}")
    return shipped[name]


if __name__ == "__main__":
    sys.exit(main())
