// edgevit's own way from pixels to scores, compiled without fused multiply-adds: those are clang's
// default on ARM, and round a resize's weights differently in the last bit. A flag would do the
// same, but a package with unsafe flags cannot be a dependency by version.
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#include "core/frame.cpp"
#include "core/pixels.cpp"
#include "core/preprocess.cpp"
#include "core/resample.cpp"
#include "core/scores.cpp"
#include "core/tensor.cpp"
