"""Text with llama.cpp: GGUF models that answer, think, look at pictures and fill in JSON schemas.

Read in this order: ``params`` (what a request may say), ``family`` (the class), ``gguf_file`` (a model file is
checked before llama.cpp sees it), ``sizing`` (what fits), ``template`` (the file's chat template, at arm's
length), ``runtime`` and ``generation`` (the model at work), ``thinking`` and ``grammar`` (what comes out).
"""
