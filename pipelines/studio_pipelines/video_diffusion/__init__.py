"""Films from words, and from a picture: diffusers' pipelines of Wan and LTX-Video under the engine."""
