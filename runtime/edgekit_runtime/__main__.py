import sys

from edgekit_runtime.cli import main

sys.exit(main())
