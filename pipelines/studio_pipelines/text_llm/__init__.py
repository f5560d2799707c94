"""Text with llama.cpp: GGUF models that answer, think, look at pictures and fill in JSON schemas.

Read in this order: ``params`` (what a request may say), ``family`` (the class), ``gguf_file`` (a model file is
checked before llama.cpp sees it), ``sizing`` (what fits), ``session`` (what is alive between load and unload),
``conversation`` and ``template`` (the prompt; the file's chat template runs at arm's length), ``llama``,
``sampler`` and ``generation`` (the model at work), ``thinking``, ``json_schema`` and ``vision``.
"""
