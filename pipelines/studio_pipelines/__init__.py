"""The families that come with Studio. Each folder is one family and imports `studio.plugin` only."""
