"""What all measuring scripts of this folder have in common: programs to try, a folder that is gone afterwards."""

import argparse
import pathlib
import tempfile

from ordinary import as_ordinary_user


def parser(what, megabytes):
    """Arguments of a script: `what` is its page, `megabytes` how much it works on unless told otherwise."""
    arguments = argparse.ArgumentParser(description=what.splitlines()[0])
    arguments.add_argument("backstay", type=pathlib.Path)
    arguments.add_argument("plugins", type=pathlib.Path)
    arguments.add_argument("--megabytes", type=int, default=megabytes)
    arguments.add_argument("--folder", default="/var/tmp", help="where the data and the repositories go")
    return arguments


def run(parser, measure):
    """What `measure` answers, given the arguments and an empty folder: as an ordinary user. And the arguments."""
    arguments = parser.parse_args()
    for name, value in vars(arguments).items():
        if isinstance(value, pathlib.Path):
            setattr(arguments, name, value.resolve())

    def work():
        with tempfile.TemporaryDirectory(prefix="backstay-bench-", ignore_cleanup_errors=True, dir=arguments.folder) as folder:
            return measure(arguments, pathlib.Path(folder))

    return as_ordinary_user(work), arguments
