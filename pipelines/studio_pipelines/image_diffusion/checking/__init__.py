"""The safety check as a model of its own, for pictures of any origin; ``family`` is all of it."""
