"""A family of films in a package of its own, as a third party would write it."""
