"""Loads the functions and weights that a specification names, before anything is written.

`python -m preprocess.plugin_check SPEC` does it in a process of its own: they may take a GPU, which
the driver must leave to its workers.
"""

from __future__ import annotations

import json
import subprocess
import sys

from mme_core.errors import UsageError
from mme_core.extract.flow import ALGORITHMS, flow_function
from mme_core.extract.point_tracks import point_tracker
from mme_core.processes import child_environment, plugin_path
from mme_core.spec import TargetSpec


def check_plugins(spec: TargetSpec) -> None:
    """Raises UsageError where the flow, the point tracker or the weights cannot be loaded."""
    if spec.flow in ALGORITHMS and not spec.tracks:
        return
    done = subprocess.run(
        [sys.executable, "-m", "preprocess.plugin_check", json.dumps(spec.to_dict())],
        env=child_environment(*plugin_path()),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        named = f"spec.tracks={spec.tracks}" if spec.tracks else f"spec.flow={spec.flow}"
        reasons = done.stdout.splitlines() or [f"{named} cannot be loaded; the error is above"]
        raise UsageError(reasons[-1])


def main(spec: TargetSpec) -> int:
    """Loads them; a wrong name is printed as one line."""
    try:
        point_tracker(spec.tracks) if spec.tracks else flow_function(spec.flow, spec.flow_weights)
    except UsageError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(TargetSpec.from_dict(json.loads(sys.argv[1]))))
