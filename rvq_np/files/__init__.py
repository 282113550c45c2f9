"""Files: written whole or not at all, safetensors, audio, columns of Arrow.

`atomic` is the one writer of files under names that users give; `safetensors` reads and writes
tensors with text about them; `wav` reads and writes sound; `arrow` takes
vectors out of columns of lists.
"""
