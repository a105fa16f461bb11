"""Converts between Hugging Face folders and checkpoints: see `python -m icl.interop.huggingface --help`."""

import sys

from icl.interop.huggingface.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
