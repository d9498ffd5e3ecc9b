"""Keep what is whole of a damaged store."""

from __future__ import annotations

import os
from pathlib import Path

from .._validate import check_int
from ..errors import StoreError
from .format import read_manifest, write_manifest
from .journal import JOURNAL, first_line, read_journal
from .locking import WriterLock
from .npy import open_inside, write_all, write_atomically


def cut_back(path: str | os.PathLike[str], n_samples: int) -> int:
    """Withdraw the samples of a store from ``n_samples`` on, so that a capture can add them again.

    The mend that errors name for a truncated file, a chunk that differs from its checksum, and a
    damaged journal. The store ends with the last whole chunk within ``n_samples``. Headers
    follow at once; the data behind them stay until the capture is resumed.

    Parameters
    ----------
    path : str or PathLike
        Directory of the store.
    n_samples : int
        Samples to keep, at most.

    Returns
    -------
    int
        Samples kept.

    Raises
    ------
    StoreError
        Where the manifest or the journal's first line is damaged, or a writer is at work.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from qixai_fast.store import LayerSpec, create_store, cut_back, open_store
    >>> folder = tempfile.TemporaryDirectory()
    >>> with create_store(folder.name, {"a": LayerSpec((2,))}, chunk_bytes=80) as writer:
    ...     writer.append({"a": np.zeros((25, 2))})
    >>> cut_back(folder.name, 19)
    10
    >>> open_store(folder.name).n_samples
    10
    >>> folder.cleanup()
    """
    check_int(n_samples, "n_samples", low=0)
    directory = Path(path).absolute()
    manifest = read_manifest(directory)
    lock = WriterLock(directory)
    try:
        chunks = [
            chunk
            for chunk in read_journal(directory, manifest, before_damage=True).chunks
            if chunk.stop <= n_samples
        ]
        kept = chunks[-1].stop if chunks else 0
        # The manifest first: a journal may hold more than it counts, never fewer.
        write_manifest(directory, manifest.with_samples(kept))
        lines = b"".join(chunk.line() for chunk in chunks)
        write_atomically(directory / JOURNAL, first_line(manifest) + lines)
        for array in manifest.arrays():
            with open_inside(directory, array.file, os.O_RDWR) as file:
                write_all(file, 0, array.header(chunks[-1].rows(array) if chunks else 0))
    except OSError as error:
        raise StoreError(
            f"{directory}: cannot be written ({error.strerror}); check free space and permissions"
        ) from error
    finally:
        lock.release()
    return kept
