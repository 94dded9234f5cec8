"""`python -m estgw`."""

import sys

from estgw.cli import main

sys.exit(main())
