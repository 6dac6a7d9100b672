"""Foreign checkpoints: read as data, without running anything in them, and handed to the format that knows them.

`contract` is what a format is made of and what a plugin imports; `reading` reads one file in a process of its own.
"""
