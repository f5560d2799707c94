"""A family of pictures in a package of its own, as a third party would write it."""
