"""The command ``python -m faults``, in `tests`: puts in faults and shows what kills each.

Exit codes: 0, every fault was killed by a test that passes without it; 1, one survived; 2, the
command line was wrong.
"""

import argparse
import json
import random
import time

from . import FAULTS
from ._run import ROOT, Copy

ANSWERS = ROOT / "docs" / "faults.json"


def main(arguments=None, faults=FAULTS, answers=ANSWERS):
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("--list", action="store_true", help="only name the faults")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="those whose names hold this")
    parser.add_argument("--sample", type=int, metavar="N", help="so many, chosen by --seed")
    parser.add_argument("--seed", default="", help="any text, such as a commit")
    parser.add_argument("--whole", action="store_true", help="run all tests where none kills")
    parser.add_argument("--write", action="store_true", help="keep them in docs/faults.json")
    options = parser.parse_args(arguments)
    chosen = [
        each for each in faults if not options.only or any(n in each.name for n in options.only)
    ]
    if options.sample is not None:
        count = min(options.sample, len(chosen))
        chosen = random.Random(options.seed).sample(chosen, count)
    if not chosen:
        parser.error("there is no such fault")
    if options.list:
        for fault in chosen:
            print(f"{fault.name}  [{fault.where}]")
        return 0
    with Copy.of() as copy:
        killers = {fault: _killer(copy, fault, options.whole) for fault in chosen}
        survivors = [fault for fault, killer in killers.items() if killer is None]
        good = _pass_without_a_fault(copy, killers)
    print(f"{len(killers)} faults, {len(survivors)} survived")
    for fault in survivors:
        print(f"SURVIVED  {fault.name}  [{fault.where}]")
    if options.write:
        _write(answers, faults, killers)
    return 1 if survivors or not good else 0


def _killer(copy, fault, whole):
    begun = time.perf_counter()
    killer = copy.killer(fault, fault.killers.split())
    if killer is None and whole:
        killer = copy.killer(fault, ["tests"])
    took = time.perf_counter() - begun
    print(f"{took:5.1f} s  {fault.name}: {killer or 'SURVIVED'}", flush=True)
    return killer


def _pass_without_a_fault(copy, killers):
    tests = sorted({killer for killer in killers.values() if killer})
    good, output = copy.pass_as_they_are(tests) if tests else (True, "")
    if not good:
        print(f"Without a fault they fail as well:\n{output}")
    return good


def _write(path, faults, killers):
    """Keep which test killed which fault; of those that did not run, what was known."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for fault, killer in killers.items():
        # Which of its cases depends on the processor.
        known[fault.name] = killer and killer.partition("[")[0]
    reported = {fault.name: known[fault.name] for fault in faults if fault.name in known}
    path.write_text(json.dumps(reported, indent=1) + "\n")
