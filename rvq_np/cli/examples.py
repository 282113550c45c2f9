"""Lines at the end of the help of each command; tests run all but those of long commands."""

EXAMPLES = {
    "fit": """
rvq-np fit vectors.npy -o model.safetensors --n-q 8 --bins 1024
rvq-np fit table.parquet --column emb -o model.safetensors --bins 256
rvq-np fit speech.wav -o speech.safetensors --front-end mdct --dim 64
""",
    "encode": """
rvq-np encode vectors.npy -m model.safetensors -o codes.rvq --n-q 4
rvq-np encode vectors.npy -m model.safetensors -o codes.rvq --frame-rate 75 --bandwidth 3
rvq-np encode table.parquet --column emb -m model.safetensors -o codes.parquet
rvq-np encode clip.wav -m speech.safetensors -o clip.rvq
cat vectors.npy | rvq-np encode - -m model.safetensors -o - > codes.rvq
""",
    "decode": """
rvq-np decode codes.rvq -m model.safetensors -o vectors.npy
rvq-np decode codes.rvq -m model.safetensors -o some.csv --n-q 2 --start 0 --stop 100
rvq-np decode clip.rvq -m speech.safetensors -o clip.wav
""",
    "info": """
rvq-np info model.safetensors --codes codes.rvq
rvq-np info codes.rvq --json
""",
    "verify": """
rvq-np verify codes.rvq -m model.safetensors
""",
    "convert": """
rvq-np convert model.safetensors -o small.safetensors --n-q 4
rvq-np convert model.safetensors -o encodec.safetensors --to encodec
rvq-np convert model.safetensors -o index.faissindex --to faiss --codes codes.rvq
""",
    "ids": """
rvq-np ids items.parquet -o ids.parquet --sizes 256,256,256
rvq-np ids add more.parquet --to ids.parquet
rvq-np ids info ids.parquet
""",
    "warmup": """
rvq-np warmup --dtype float32 float64
""",
    "compile": """
rvq-np compile -o _kernels.so
rvq-np compile --target x86-64-v3 x86-64-v4 -o _kernels.so
""",
    "bench": """
rvq-np bench --dim 64 --bins 256 --n-q 4
""",
    "demo": """
rvq-np demo
rvq-np demo --wav my.wav -o my-demo
""",
}
