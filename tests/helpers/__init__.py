"""What tests share: ways through the library, drawn cases, independent answers, stand-ins.

None of these files holds a test; `keras_cases` alone is run by pytest, on a backend of Keras at a
time, and `ranks_in_torch` and `devices_in_jax` run as processes of their own.
"""
