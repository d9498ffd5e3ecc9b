"""``python -m qixai_fast``: the same as the ``qixai-fast`` command."""

from ._start import main

if __name__ == "__main__":
    main()
