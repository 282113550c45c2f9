"""The command: so many inputs of one target, from a seed."""

import argparse
import sys

from . import run

parser = argparse.ArgumentParser(prog="python -m fuzzing")
parser.add_argument("target", choices=run.TARGETS)
parser.add_argument("--inputs", type=int, default=100_000)
parser.add_argument("--first", type=int, default=0, help="number of the first input, to replay")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--write", action="store_true", help="add the counts to docs/reliability.json")
options = parser.parse_args()
result = run.fuzz(options.target, options.inputs, options.seed, options.first)
print(result)
if options.write:
    run.record(result)
sys.exit(1 if result.findings else 0)
