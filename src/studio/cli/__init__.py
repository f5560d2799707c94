"""The command line: a thin face over ``studio.core``."""
