// The qnn target's back-end: Qualcomm's NPU, by the context binary in a .tflite.
#include "npu_backend.h"

namespace edgevit::qnn {
namespace {

constexpr npu::Vendor kQualcomm = {
    "Qualcomm", "Qualcomm's Hexagon NPU (HTP)", "libLiteRtDispatch_Qualcomm.so",
    "libQnnHtp.so, libQnnSystem.so and the Stub and Skel of the phone's HTP version"};

std::unique_ptr<Backend> open(const Manifest& manifest, const BackendOptions& options) {
    return npu::open_npu(manifest, options, kQualcomm);
}

[[maybe_unused]] const bool registered =
    register_backend("qnn", open, npu::runtime_options(), Opens::bytes_too);

}  // namespace
}  // namespace edgevit::qnn
