"""Shared ground of all tests."""

import signal

# A runner started in the background inherits "ignore SIGINT", and hands it on to every child: then
# no test of Ctrl-C could work. A handler of our own becomes the default again in a child.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
