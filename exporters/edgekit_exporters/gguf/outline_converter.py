"""llama.cpp's converter without its last step: it writes a file's header, then the length that the file would have.

Runs in a process of its own, started by :mod:`~edgekit_exporters.gguf.outline`: ``outline_converter.py TOOLS
ARGUMENTS…``, where TOOLS is the folder of the converters, and the arguments are the converter's.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

CONVERTER = "convert_hf_to_gguf.py"


def write_outline(writer: Any, *, progress: bool = False) -> None:
    """Stands in for ``GGUFWriter.write_tensors_to_file``, for a file that isn't split."""
    del progress
    writer.write_ti_data_to_file()
    ((file, tensors),) = zip(writer.fout, writer.tensors, strict=True)
    alignment = writer.data_alignment
    size = writer.ggml_pad(file.tell(), alignment)
    size += sum(writer.ggml_pad(tensor.nbytes, alignment) for tensor in tensors.values())
    file.write(size.to_bytes(8, "little"))


def main(tools: str) -> None:
    """Run the converter of a folder."""
    sys.path[:1] = [tools, str(Path(tools, "gguf-py"))]  # not this script's own folder, which hides other modules
    import gguf

    gguf.GGUFWriter.write_tensors_to_file = write_outline
    sys.argv[:2] = [str(Path(tools, CONVERTER))]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
