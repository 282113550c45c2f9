"""Files: written whole or not at all, safetensors, audio.

`atomic` writes a file beside its place and moves it there; `safetensors` reads and writes tensors
with text about them; `wav` reads and writes sound.
"""
