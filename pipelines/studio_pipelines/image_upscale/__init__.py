"""Larger pictures: Real-ESRGAN in torch.

Read in this order: ``params`` (what a request may say), ``family`` (the class), ``architecture`` (sizes and shapes of
the two networks, without torch), ``pictures`` (what is refused), ``ncnn`` (weights, checked before anything is built),
``network`` (the networks), ``pixels`` (in and out of files), ``tiles`` (where a picture is cut) and ``enlarge`` (the
work itself).
"""
