"""`python -m lab`; the commands are in `lab.cli`."""

import sys

from lab.cli import main

sys.exit(main())
