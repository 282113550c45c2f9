"""Train the speech autoencoder in torch and in JAX, and without its gradient; print and draw.

python docs/examples/autoencoder [--steps 1200]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import comparison
import figures
import plot
import torch
from training import start

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="autoencoder", description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1200, help="of training (default: 1200)")
    parser.add_argument("--every", type=int, default=25, help="steps between two measurements")
    given = parser.parse_args()
    # For batches as small as these a second thread gains little, and on a busy machine threads
    # that wait for each other made a step take ten times as long.
    torch.set_num_threads(1)
    differences, begin, done = comparison.without_draws(20), start(given.steps), {}
    for name, train in comparison.RUNS.items():
        run = done[name] = train(begin, given.every)
        print(f"{name}: {run.seconds:.0f} s, held-out error {run.held_out[-1][1]:.3f}", flush=True)
    results = figures.results(done, differences, given.every)
    print(f"\n{figures.table(results)}\n\n{figures.agreement(results)}")
    (HERE / "results.json").write_text(json.dumps(results) + "\n")
    plot.write(HERE.parents[1] / "_static" / "autoencoder.svg", results)


if __name__ == "__main__":
    main()
