"""How fast is rvq_np beside what people would use instead?

`problems` holds the sizes and the data, `peers` the contestants for encoding, `threads` fixes how
many threads everybody gets, `timing` lets contestants take turns, `questions` holds what is asked,
`report` turns answers into tables. ``python -m bench`` from the checkout's root asks everything in
one run; ``pytest bench --benchmark-only`` asks about encoding alone. See ``README.md``.
"""
