"""draft"""
def tile_px(variant: str) -> int | None:
    """The tiles, in pixels, that a plan's variant of a stage means; ``None``: whole."""
    words = variant.split()
    return int(words[2]) if len(words) == 3 and words[2].isdecimal() else None
