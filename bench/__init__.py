"""How fast is rvq_np beside what people would use instead?

`problems` holds the sizes and the data, `peers` the contestants for encoding, `threads` fixes how
many threads everybody gets, `timing` lets contestants take turns. `questions` lists what is asked;
the questions themselves are in `encoding`, `grid`, `decoding`, `training` and `process`, and for
whole quantizers as users run them in `defaults` and `home`. `report`
turns answers into tables, `machine` says what they were measured on, `plotting` draws the curves.
``python -m bench`` from the checkout's root asks everything in one run; ``pytest bench
--benchmark-only`` asks about encoding alone; ``python -m bench.gpu`` is for NVIDIA cards. See
``README.md``.
"""
