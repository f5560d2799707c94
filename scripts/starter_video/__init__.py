"""The parts of `scripts/train_starter_video.py`: scenes, motions, captions, models, stages, films to look at."""
