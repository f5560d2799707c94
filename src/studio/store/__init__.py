"""What lasts: the home folder, the database, input files, artefacts and their recipes."""
