"""`python -m estgw`."""

import sys

from estgw.cli.main import main

sys.exit(main())
