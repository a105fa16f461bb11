"""Public weights in and out: GPT-2, GPT-NeoX and Llama-shaped models in Hugging Face folders.

    python -m icl.interop.huggingface import DIR --workdir RUN     (also tools/convert.py)
    python -m icl.interop.huggingface export RUN DIR

`open_folder` checks a folder and reads its parameters onto any mesh; `icl.eval --checkpoint hf:DIR` evaluates
it as it is.
"""

from icl.interop.huggingface.convert import export_checkpoint, import_folder, write_folder
from icl.interop.huggingface.folder import Folder, is_folder_path, open_folder

__all__ = ["Folder", "export_checkpoint", "import_folder", "is_folder_path", "open_folder", "write_folder"]
