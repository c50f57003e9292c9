"""`python -m kfcn_mobile BUNDLE` from a copy of `mobile/`."""

import sys

from kfcn_mobile.validate import main

sys.exit(main())
