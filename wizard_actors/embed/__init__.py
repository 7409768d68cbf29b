"""Hosts for what runs under Trio, in programs that do not: a thread of its own, and ways for others to call into it.

TrioThread      the thread; in it, one resource (a client) for as long as its block lasts
Call            one function on its way through that thread, for a caller elsewhere
Pipe            a stream's events on their way from that thread to a reader elsewhere
Errands         what a call lets its caller do meanwhile: take the next item of an iterable, say how far it is
AsyncioHost     how tasks under asyncio use them          BlockingHost    how plain threads do
"""
