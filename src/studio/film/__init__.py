"""Films: frames to segment files, segments to one film, sound under it. PyAV is imported when something is made."""
