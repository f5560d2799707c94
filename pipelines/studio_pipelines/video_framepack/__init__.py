"""Films by FramePack: a minute of film in sections, each of which is kept as soon as it is made."""
