// A stand-in, not NVIDIA's: a TensorRT and a CUDA that compute nothing, behind the stand-in
// headers.
//
// The "ONNX" is a text, "fake-onnx DTYPE CLASSES" and words that make something fail; its input is
// [1, 3, 8, 8], and output i is input i. With the word "features" a second output of that name,
// [1, 2, 2, 2], comes first, and is input 16 to 23. Work on a stream is done when the stream is
// waited for.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace fake {

struct State {
    int gpus = 1;
    int driver = 12060;
    std::string gpu_name = "Fake";
    int multiprocessors = 8;
    int nvtx_marked_runs = 0;             // inferences that NVIDIA's profilers would see each layer of
    int builds = 0;
    std::size_t workspace_bytes = 0;      // of the last build
    int timing_caches_read = 0;           // that held something
    int live = 0;                         // objects of TensorRT's and CUDA's
    std::vector<std::string> violations;  // of the order in which objects have to go, and the like
};

State& state();

}  // namespace fake
