# Included by CMake right before llama.cpp's own project: leaves out its command-line helpers, which the Python
# binding does not use and which take a good part of the build's time.
set(LLAMA_BUILD_COMMON OFF)
