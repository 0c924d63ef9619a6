"""Files of strangers: real ones, mutated, and every path that reads them.

`corpus` makes the real files, `mutators` alters bytes and JSON, `formats` what knows a format (safetensors, parquet,
cards, Git LFS pointers), `targets` names the reading paths and the mutations that go with each, and `watch` says what
reading may do: return, or raise a `MetaPruneError`, in bounded memory, without a write, a process or a connection.

A case is a target and a source of randomness, which has a seed. The tests run some hundred, ``scripts/fuzz.py`` as many
as one likes.
"""
