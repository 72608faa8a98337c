import sys

from mollikit.cli import main

sys.exit(main())
