"""`python3 -m snf_lab`, which `./lab` runs."""

import sys

from snf_lab.cli import main

sys.exit(main(sys.argv[1:]))
