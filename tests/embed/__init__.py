"""The same client under Trio, asyncio, uvloop and in plain threads: each behaviour is written once, and run in each."""
