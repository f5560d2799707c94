"""Qwen's processor of text and pictures, without its part for films, which needs torchvision."""

from __future__ import annotations

from typing import Any


def without_films(kind: type[Any]) -> type[Any]:
    """``kind`` itself, or for transformers' ``Qwen2VLProcessor`` a class that reads the same files but takes no films.

    Editing hands it pictures only, and Pillow reads those; the class as it is cannot even be made without torchvision.
    """
    from transformers import Qwen2VLProcessor
    from transformers.processing_utils import ProcessorMixin

    if kind is not Qwen2VLProcessor:
        return kind

    class PictureProcessor(Qwen2VLProcessor):  # its parts are the arguments of its __init__
        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            above: Any = ProcessorMixin.__init__  # not the next class, which asks for the part for films
            above(self, image_processor, tokenizer, chat_template=chat_template)

    return PictureProcessor
