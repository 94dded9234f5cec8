"""`python -m estgw.client`."""

import sys

from estgw.client.commands.cli import main

sys.exit(main())
