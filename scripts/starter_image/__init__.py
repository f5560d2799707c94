"""The parts of `scripts/train_starter_image.py`: concepts, data, models, stages, pictures to look at."""
