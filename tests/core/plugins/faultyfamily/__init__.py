"""A family that goes wrong on demand, for the tests of faults."""
