"""Images through llama.cpp's mtmd: a projector file that turns pixels into what the text model reads.

mtmd scales an image, cuts it into tiles where the model wants that, and says which tokens stand around them; nothing
of that is done anywhere else, in training neither.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_cpp import llama_cpp as llama
from llama_cpp import mtmd_cpp as mtmd

from edgekit_runtime.engines.base import Frame, Layout
from edgekit_runtime.engines.cells import cell_ids
from edgekit_runtime.engines.llama.library import clear_errors, log_callback, reason, start_backend
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.base_header import check_projector
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.formats.images import Picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_LIMIT = 64 * 1024 * 1024  # bytes of embeddings that are kept
FLOAT_BYTES = 4
ENCODINGS = 3  # of one chunk, until all of it is numbers
KEY_WIDTH = "clip.vision.projection_dim"
BREAK = "v.token_embd.img_break"  # the tensor of Pixtral's breaks between rows of patches


class LlamaImages:
    """A projector for one text model.  Not thread-safe."""

    def __init__(self, projector: Path, model: Any, *, threads: int, limit: int = DEFAULT_LIMIT) -> None:
        """Load a projector.

        Args:
            projector: its GGUF.
            model: llama.cpp's handle of the text model; its vocabulary and width are used.
            threads: for encoding.
            limit: bytes of embeddings to keep for images that are asked about again.

        Raises:
            InputError: llama.cpp refuses the file, or the text model needs what this runtime can't do.
        """
        header = read_gguf(projector)
        check_projector(header)
        start_backend()
        mtmd.mtmd_log_set(log_callback, ctypes.c_void_p(0))
        parameters = mtmd.mtmd_context_params_default()
        parameters.use_gpu = parameters.print_timings = parameters.warmup = False
        parameters.n_threads = threads
        clear_errors()
        self._context = mtmd.mtmd_init_from_file(str(projector).encode(), model, parameters)
        if not self._context:
            raise InputError(f"llama.cpp refuses the projector {projector}{reason()}", "export it again")
        # Not the model's, which is unknown without its weights.
        self._width = int(header.metadata[KEY_WIDTH])
        self._break = _read_break(header)
        self._limit = limit
        self._known: OrderedDict[str, _Seen] = OrderedDict()  # by digest of the pixels; the longest unused first
        self.encoded = 0  # frames
        try:
            self._check()
        except InputError:
            self.close()
            raise

    def layout(self, picture: Picture) -> Layout:
        """How the model sees an image.

        Raises:
            InputError: mtmd can't use it.
        """
        seen = self._known.get(picture.digest)
        if seen is None:
            seen = self._known[picture.digest] = _Seen(self, picture)
        self._known.move_to_end(picture.digest)
        while len(self._known) > 1 and sum(each.size for each in self._known.values()) > self._limit:
            self._known.popitem(last=False)
        return seen.layout

    def close(self) -> None:
        """Free the projector."""
        self._known.clear()
        if self._context:
            mtmd.mtmd_free(self._context)
            self._context = None

    def chunks(self, picture: Picture) -> Any:
        """Mtmd's handle of a tokenised image; the caller frees it."""
        pixels = (ctypes.c_uint8 * len(picture.rgb)).from_buffer_copy(picture.rgb)
        bitmap = mtmd.mtmd_bitmap_init(picture.width, picture.height, pixels)
        chunks = mtmd.mtmd_input_chunks_init()
        part = mtmd.mtmd_input_part(text=None, bitmap=bitmap)
        parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(ctypes.pointer(part))
        clear_errors()
        status = mtmd.mtmd_tokenize_from_parts(self._context, chunks, parts, 1, False)
        mtmd.mtmd_bitmap_free(bitmap)
        if status:
            mtmd.mtmd_input_chunks_free(chunks)
            raise InputError(
                f"the base can't see an image of {picture.width} x {picture.height} pixels{reason()}", "scale it"
            )
        return chunks

    def encode(self, chunk: Any) -> NDArray[np.float32]:
        """Embeddings of one chunk, [cells, width].

        Raises:
            EdgekitError: they can't be computed, or are no numbers each time.
        """
        import numpy as np

        self.encoded += 1
        shape = (int(mtmd.mtmd_input_chunk_get_n_tokens(chunk)), self._width)
        for _ in range(ENCODINGS):
            clear_errors()
            if mtmd.mtmd_encode_chunk(self._context, chunk):
                raise EdgekitError(f"llama.cpp failed to encode an image{reason()}")
            found = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self._context), shape).copy()
            if self._break is not None:
                with_breaks(found, self._break)
            if np.isfinite(found).all():
                return found
        raise EdgekitError("llama.cpp computes what is no number of an image")

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self._width

    def _check(self) -> None:
        if not mtmd.mtmd_support_vision(self._context):
            raise InputError("the projector reads no images", "export a base for images")
        if mtmd.mtmd_decode_use_mrope(self._context):
            raise InputError("bases with M-RoPE (Qwen2-VL and its like) are not supported", "use SmolVLM or Pixtral")
        if mtmd.mtmd_decode_use_non_causal(self._context, None):
            raise InputError("bases that see images without a causal mask (Gemma 3) are not supported", "use SmolVLM")


def _read_break(header: GgufFile) -> NDArray[np.float32] | None:
    """The embedding of a break between two rows of patches, [width]; None where the encoder has none."""
    import numpy as np

    tensor = header.tensors.get(BREAK)
    if tensor is None or tensor.type_name != "F32":
        return None
    return np.fromfile(header.path, "<f4", tensor.size // FLOAT_BYTES, offset=tensor.offset)


def with_breaks(embeddings: NDArray[np.float32], row_break: NDArray[np.float32]) -> None:
    """Put breaks in place where llama.cpp left what is no number.

    llama.cpp makes a break of memory that nobody has written: it multiplies it by zero and adds the break
    (models/pixtral.cpp), which leaves NaN where the memory held NaN or infinity.  What stands between breaks is a row
    of patches, whose attention goes over all patches: one that is no number makes all of them none.

    Args:
        embeddings: of one image, [cells, width]; changed in place.
        row_break: the embedding of a break, [width].
    """
    import numpy as np

    numbers = np.isfinite(embeddings)
    broken = ~numbers.all(axis=1)
    if broken.all():
        return
    breaks = ((embeddings == row_break) | ~numbers).all(axis=1)
    embeddings[broken & breaks] = row_break


def open_images(projector: Path, text: Path, *, threads: int) -> LlamaImages:
    """A projector without its text model's weights: of ``text`` only the vocabulary and the widths are read.

    Raises:
        InputError: llama.cpp refuses one of the files.
    """
    start_backend()
    parameters = llama.llama_model_default_params()
    parameters.vocab_only = True
    clear_errors()
    model = llama.llama_model_load_from_file(str(text).encode(), parameters)
    if not model:
        raise InputError(f"llama.cpp refuses {text}{reason()}", "export it again")
    images = LlamaImages(projector, model, threads=threads)
    weakref.finalize(images, llama.llama_model_free, model)
    return images


class _Seen:
    """One image, tokenised; its pixels go when all of its frames are encoded."""

    def __init__(self, images: LlamaImages, picture: Picture) -> None:
        self._chunks: Any = images.chunks(picture)
        self._free = weakref.finalize(self, mtmd.mtmd_input_chunks_free, self._chunks)
        self.layout: list[int | Frame] = []
        frames = []
        for number in range(mtmd.mtmd_input_chunks_size(self._chunks)):
            chunk = mtmd.mtmd_input_chunks_get(self._chunks, number)
            if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
                count = ctypes.c_size_t()
                tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
                self.layout += tokens[: count.value]
            else:
                frames.append(_Frame(self, images, chunk, f"{picture.digest} {number}"))
                self.layout.append(frames[-1])
        self._left = len(frames)
        self.size = sum(len(frame.cells) for frame in frames) * images.width * FLOAT_BYTES

    def done(self) -> None:
        """A frame more is encoded."""
        self._left -= 1
        if not self._left:
            self._free()


class _Frame:
    """See :class:`~edgekit_runtime.engines.base.Frame`."""

    def __init__(self, seen: _Seen, images: LlamaImages, chunk: Any, name: str) -> None:
        self.cells = cell_ids(name, int(mtmd.mtmd_input_chunk_get_n_tokens(chunk)))
        self._seen, self._images, self._chunk = seen, images, chunk  # the chunk is the image's
        self._embeddings: NDArray[np.float32] | None = None

    @property
    def encoded(self) -> bool:
        return self._embeddings is not None

    def embeddings(self) -> NDArray[np.float32]:
        if self._embeddings is None:
            self._embeddings = self._images.encode(self._chunk)
            self._seen.done()
        return self._embeddings
