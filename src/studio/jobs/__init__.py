"""Jobs that are never lost: the queue, the runner that works it off, and where the work is done."""
