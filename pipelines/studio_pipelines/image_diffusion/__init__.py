"""Pictures from prompts and from pictures: diffusers' pipelines, planned and streamed by the engine.

Read in this order: ``params`` (what may be asked), ``catalogued`` (what the catalogue says of a model), ``classes``
(which diffusers class does what), ``footprint`` (what it takes), ``assemble`` (from files to a pipeline), ``run`` (one
request), ``family`` (all of it under the contract).
"""
