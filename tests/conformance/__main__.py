"""``python -m conformance``, in `tests`."""

import json

from . import batches, run
from .report import page

everything = {}
for key in run.PACKAGES:
    print(f"{key} ...", flush=True)
    everything[key] = run.found_about(key)
print("batches ...", flush=True)
facts = batches.written()
run.KNOWN.write_text(json.dumps(everything, indent=1) + "\n")
batches.KNOWN.write_text(json.dumps(facts, indent=1) + "\n")
(run.DOCS / "conformance.md").write_text(page(everything, batches.section(facts)))
