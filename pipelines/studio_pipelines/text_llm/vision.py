"""The eyes of a model: pictures through llama.cpp's mtmd, by its C interface (tools/mtmd/mtmd.h).

Pictures are local files that the core has checked. Pillow decodes them here, so mtmd gets plain RGB and none of its
own decoders, and no address is ever fetched (llama-cpp-python's ``MTMDChatHandler`` does both, and renders the
file's template in this process). A prompt with pictures is always read from the start.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.plugin import BadRequest, BadWeights, Context, StudioError

from .generation import Measures, check_length
from .llama import Llama, last_errors

PIXELS_MAX = 40_000_000
SIDE_MAX = 4_096
FORMATS = ("PNG", "JPEG", "WEBP")


def read_picture(path: Path) -> tuple[int, int, bytes]:
    """Width, height and RGB bytes of a picture, upright, with no side over 4,096 pixels."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > PIXELS_MAX:
                raise BadRequest(
                    f"{path.name} has {picture.width:,} x {picture.height:,} pixels; the limit is 40 megapixels.",
                    "Make it smaller.",
                )
            picture.load()
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRequest(f"{path.name} cannot be read as a picture.", "Use PNG, JPEG or WebP.") from error
    # What is transparent is shown on white, as a page would.
    flat = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    flat.thumbnail((SIDE_MAX, SIDE_MAX))
    return flat.width, flat.height, flat.tobytes()


class Eyes:
    """The network that sees, beside a loaded model; ``close`` frees it."""

    def __init__(self, path: Path, llama: Llama, marker: str, card: bool) -> None:
        from llama_cpp import mtmd_cpp

        self._lib: Any = mtmd_cpp
        self._llama = llama
        self._marker = marker.encode()
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu = card
        params.print_timings = False
        params.warmup = False
        params.n_threads = llama.threads
        params.media_marker = self._marker
        last_errors.clear()
        self._ctx: Any = mtmd_cpp.mtmd_init_from_file(str(path).encode(), llama.model, params)
        if not self._ctx or not mtmd_cpp.mtmd_support_vision(self._ctx):
            why = last_errors[0] if last_errors else "it gave no reason"
            self.close()
            raise BadWeights(f"llama.cpp cannot see with {path.name}: {why[:200]}.", "Fetch both files again.")

    def close(self) -> None:
        """Free everything. May be called twice."""
        if self._ctx:
            self._lib.mtmd_free(self._ctx)
        self._ctx = None

    def read_prompt(
        self, text: str, pictures: tuple[Path, ...], ctx: Context, measures: Measures
    ) -> Iterator[tuple[int, int]]:
        """Evaluate a prompt with a marker for each picture; yields ``(tokens done, tokens in all)``."""
        import time

        lib, bitmaps = self._lib, []
        chunks = lib.mtmd_input_chunks_init()
        began = time.perf_counter()
        try:
            for path in pictures:
                ctx.check()
                bitmaps.append(self._bitmap(path))
            self._tokenize(text, bitmaps, chunks)
            total = int(lib.mtmd_helper_get_n_tokens(chunks))
            measures.prompt_tokens = total
            check_length(total, self._llama.n_ctx)
            self._llama.clear()
            for index in range(int(lib.mtmd_input_chunks_size(chunks))):
                for _ in self._read(lib.mtmd_input_chunks_get(chunks, index), ctx):
                    yield self._llama.cells, total
        finally:
            for bitmap in bitmaps:
                lib.mtmd_bitmap_free(bitmap)
            lib.mtmd_input_chunks_free(chunks)
            measures.prompt_s = time.perf_counter() - began

    def _bitmap(self, path: Path) -> Any:
        width, height, pixels = read_picture(path)
        data = (ctypes.c_uint8 * len(pixels)).from_buffer_copy(pixels)
        bitmap = self._lib.mtmd_bitmap_init(width, height, data)  # copies the pixels
        if not bitmap:
            raise StudioError(f"llama.cpp cannot take the picture {path.name}.", "Use a smaller one.")
        return bitmap

    def _tokenize(self, text: str, bitmaps: list[Any], chunks: Any) -> None:
        data = text.encode()
        bos = self._llama.bos
        given = self._lib.mtmd_input_text(
            text=data, text_len=len(data), add_special=not (bos and text.startswith(bos)), parse_special=True
        )
        array = (self._lib.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
        result = self._lib.mtmd_tokenize(self._ctx, chunks, ctypes.byref(given), array, len(bitmaps))
        if result:
            raise StudioError(
                f"llama.cpp cannot place the pictures in the prompt (code {result}).", "Use other pictures."
            )

    def _read(self, chunk: Any, ctx: Context) -> Iterator[None]:
        lib, llama = self._lib, self._llama
        ctx.check()
        if lib.mtmd_input_chunk_get_type(chunk) == lib.MTMD_INPUT_CHUNK_TYPE_TEXT:
            count = ctypes.c_size_t()
            tokens = lib.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            for at in range(0, count.value, llama.chunk):
                ctx.check()
                with llama.abort_when(ctx.check):
                    llama.evaluate(tokens[at : min(at + llama.chunk, count.value)])
                yield
            return
        size = int(lib.mtmd_input_chunk_get_n_tokens(chunk))
        if lib.mtmd_decode_use_non_causal(self._ctx, chunk) and size > llama.batch_max:
            raise StudioError(
                f"A picture takes {size:,} tokens; this model reads {llama.batch_max:,} at once.",
                "Use a smaller picture.",
            )
        past = lib.llama_cpp.llama_pos(0)
        result = lib.mtmd_helper_eval_chunk_single(
            self._ctx, llama.ctx, chunk, llama.position, 0, llama.batch_max, False, ctypes.byref(past)
        )
        if result:
            raise StudioError(f"llama.cpp cannot read the picture (code {result}).", "Try a smaller picture.")
        llama.cells += size
        llama.position = past.value
        yield
