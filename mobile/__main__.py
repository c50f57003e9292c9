"""`python -m mobile BUNDLE` from a copy of this folder."""

import sys

from .validate import main

sys.exit(main())
