"""Mutated files by the million: each decodes or raises the documented error, in bounded memory.

    cd tests && python -m fuzzing container --inputs 1000000 --seed 1 --write

`corpus` makes small valid files, `mutations` damages them, knowing the formats where that is needed
to get past checksums, and `targets` reads the result.  A finding is printed with what replays it:
target, seed and number of the input.  ``--write`` adds the counts to docs/reliability.json.
"""
