"""`python -m mme_core` is the `mme` command where no entry point is installed."""

import sys

from mme_core.processes import put_current_folder_last

put_current_folder_last()  # before anything else is imported

from mme_core.cli import main  # noqa: E402

sys.exit(main())
