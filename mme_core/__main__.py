"""`python -m mme_core` is the `mme` command where no entry point is installed."""

import sys

from mme_core.cli import main

sys.exit(main())
