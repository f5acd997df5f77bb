// A second device for torch that is the CPU under another name, so that what mixes devices fails
// on a machine without a GPU.
//
// Tensors of device "standin" lie in ordinary memory; every operation runs the CPU's kernel on the
// same bytes. An operation that is given tensors of both devices is refused, as CUDA refuses it; a
// tensor of the CPU without dimensions may take part, as there. Copies between the devices are
// counted: on a GPU each waits for the device. A captured step runs again on the memory it was
// captured with, with the Python numbers of then, as a CUDA graph does; what waits is refused
// there.

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

using at::Tensor;
using c10::IValue;

constexpr auto kStandIn = c10::DeviceType::PrivateUse1;
std::atomic<int64_t> to_host_count{0};
std::atomic<int64_t> to_device_count{0};

// One device, one stream, and every call is done when it returns.
struct Guard : c10::impl::DeviceGuardImplInterface {
    Guard() = default;
    explicit Guard(c10::DeviceType) {}
    c10::DeviceType type() const override { return kStandIn; }
    c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
    c10::Device getDevice() const override { return {kStandIn, 0}; }
    void setDevice(c10::Device) const override {}
    void uncheckedSetDevice(c10::Device) const noexcept override {}
    c10::Stream getStream(c10::Device d) const override {
        return c10::Stream(c10::Stream::DEFAULT, d);
    }
    c10::Stream getNewStream(c10::Device d, int) const override { return getStream(d); }
    c10::Stream exchangeStream(c10::Stream s) const override { return s; }
    c10::DeviceIndex deviceCount() const noexcept override { return 1; }
    void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
    void block(void*, const c10::Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
    void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
    bool queryStream(const c10::Stream&) const override { return true; }
    void synchronizeStream(const c10::Stream&) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Allocator : c10::Allocator {
    c10::DataPtr allocate(size_t bytes) override {
        c10::DataPtr found = c10::GetCPUAllocator()->allocate(bytes);
        found.unsafe_set_device({kStandIn, 0});
        return found;
    }
    void copy_data(void* to, const void* from, std::size_t count) const override {
        default_copy_data(to, from, count);
    }
};

Allocator allocator;
REGISTER_ALLOCATOR(kStandIn, &allocator);

struct Hooks : at::PrivateUse1HooksInterface {
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

// What was run since a capture began, to be run again on the same memory.
using Tape = std::vector<std::function<void()>>;
std::unique_ptr<Tape> recording;
std::vector<std::unique_ptr<Tape>> tapes;

// Capturing changes nothing on a GPU. Here the operations run, so what they write into is put back.
struct Before {
    c10::Storage storage;
    std::vector<char> bytes;
};
std::map<const void*, Before> written;

void keep(const Tensor& t) {
    if (!t.defined() || written.contains(t.storage().data())) {
        return;
    }
    const auto* bytes = static_cast<const char*>(t.storage().data());
    written.emplace(bytes, Before{t.storage(), {bytes, bytes + t.storage().nbytes()}});
}

void put_back() {
    for (auto& [place, before] : written) {
        std::ranges::copy(before.bytes, static_cast<char*>(before.storage.mutable_data()));
    }
    written.clear();
}

void not_while_recording(const char* what) {
    TORCH_CHECK(recording == nullptr, what, " is not permitted while a step is captured");
}

bool is_stand_in(const Tensor& t) { return t.defined() && t.device().type() == kStandIn; }

// A tensor over a storage, with the shape, strides and offset of another.
Tensor over(c10::Storage storage, c10::DispatchKeySet keys, const Tensor& like) {
    auto result = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW,
                                                           std::move(storage), keys, like.dtype());
    auto* impl = result.unsafeGetTensorImpl();
    impl->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
    return result;
}

Tensor over(c10::Storage storage, c10::DispatchKey key, const Tensor& like) {
    auto result = at::detail::make_tensor<c10::TensorImpl>(std::move(storage),
                                                           c10::DispatchKeySet(key), like.dtype());
    auto* impl = result.unsafeGetTensorImpl();
    impl->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
    return result;
}

// Another storage over the same bytes, said to be on `device`; it keeps the first one alive.
c10::Storage renamed(const c10::Storage& storage, c10::Device device) {
    auto* kept = new c10::Storage(storage);
    at::DataPtr bytes(
        kept->mutable_data(), kept, [](void* p) { delete static_cast<c10::Storage*>(p); }, device);
    auto* maker = device.is_cpu() ? c10::GetCPUAllocator() : c10::GetAllocator(kStandIn);
    return c10::Storage(c10::Storage::use_byte_size_t{}, storage.nbytes(), std::move(bytes), maker,
                        true);
}

Tensor as_cpu(const Tensor& t) {
    return over(renamed(t.storage(), c10::Device(c10::kCPU)), c10::DispatchKey::CPU, t);
}

// One call: its arguments on the CPU, and what they were.
class Call {
  public:
    explicit Call(const c10::OperatorHandle& op) : op_(op) {}

    Tensor given(const Tensor& t) {
        if (is_stand_in(t)) {
            stand_in_ = true;
            originals_.push_back(t);
            aliases_.push_back(as_cpu(t));
            return aliases_.back();
        }
        if (t.defined() && t.dim() > 0) {
            foreign_ = true;
        }
        return t;
    }

    IValue given(const IValue& value) {
        if (value.isTensor()) {
            return given(value.toTensor());
        }
        if (value.isTensorList()) {
            c10::List<Tensor> list;
            for (const Tensor& t : value.toTensorVector()) {
                list.push_back(given(t));
            }
            return list;
        }
        if (value.isOptionalTensorList()) {
            c10::List<std::optional<Tensor>> list;
            for (const std::optional<Tensor>& t : value.toOptionalTensorVector()) {
                list.push_back(t ? std::optional<Tensor>(given(*t)) : std::nullopt);
            }
            return list;
        }
        return value.isDevice() ? IValue(c10::Device(c10::kCPU)) : value;
    }

    void check() const {
        TORCH_CHECK(!(stand_in_ && foreign_), "Expected all tensors to be on the same device, but ",
                    op_.schema().name(), " found standin:0 and cpu");
    }

    // A result under the device's name: an argument, a view of one, or new memory.
    Tensor made(const Tensor& t) const {
        if (!t.defined()) {
            return t;
        }
        for (size_t i = 0; i < aliases_.size(); ++i) {
            if (t.is_same(aliases_[i])) {
                follow(originals_[i], t);
                return originals_[i];
            }
            if (t.storage().data() == aliases_[i].storage().data() && t.storage().nbytes() > 0) {
                return over(originals_[i].storage(), originals_[i].key_set(), t);
            }
        }
        return over(renamed(t.storage(), c10::Device(kStandIn, 0)), c10::DispatchKey::PrivateUse1,
                    t);
    }

    IValue made(const IValue& value) const {
        if (value.isTensor()) {
            return made(value.toTensor());
        }
        if (value.isTensorList()) {
            c10::List<Tensor> list;
            for (const Tensor& t : value.toTensorVector()) {
                list.push_back(made(t));
            }
            return list;
        }
        return value;
    }

  private:
    // What an operation did to the shape and memory of a tensor that it was given to write into.
    static void follow(const Tensor& original, const Tensor& alias) {
        auto* impl = original.unsafeGetTensorImpl();
        if (original.storage().data() != alias.storage().data()) {
            impl->set_storage_keep_dtype(renamed(alias.storage(), c10::Device(kStandIn, 0)));
        }
        impl->set_sizes_and_strides(alias.sizes(), alias.strides(), alias.storage_offset());
    }

    const c10::OperatorHandle& op_;
    std::vector<Tensor> originals_;
    std::vector<Tensor> aliases_;
    bool stand_in_ = false;
    bool foreign_ = false;
};

// Puts what an operation gives now where it was put when it was captured.
void write_again(const Tensor& kept, const Tensor& now) {
    if (kept.defined() && kept.storage().data() != now.storage().data()) {
        kept.copy_(now);
    }
}

void write_again(const IValue& kept, const IValue& now) {
    if (kept.isTensor()) {
        write_again(kept.toTensor(), now.toTensor());
    } else if (kept.isTensorList()) {
        const auto before = kept.toTensorVector();
        const auto after = now.toTensorVector();
        for (size_t i = 0; i < before.size(); ++i) {
            write_again(before[i], after[i]);
        }
    }
}

void run_on_the_cpu(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
    Call call(op);
    const size_t count = op.schema().arguments().size();
    const size_t first = stack->size() - count;
    for (size_t i = 0; i < count; ++i) {
        (*stack)[first + i] = call.given((*stack)[first + i]);
    }
    call.check();
    const torch::jit::Stack arguments(stack->begin() + static_cast<int64_t>(first), stack->end());
    for (size_t i = 0; recording != nullptr && i < count; ++i) {
        const auto* alias = op.schema().arguments()[i].alias_info();
        if (alias == nullptr || !alias->isWrite()) {
            continue;
        }
        if (arguments[i].isTensor()) {
            keep(arguments[i].toTensor());
        } else if (arguments[i].isTensorList()) {
            std::ranges::for_each(arguments[i].toTensorVector(), keep);
        }
    }
    {
        at::AutoDispatchBelowADInplaceOrView guard;
        op.callBoxed(stack);
    }
    if (recording != nullptr) {
        const torch::jit::Stack results(stack->begin() + static_cast<int64_t>(first), stack->end());
        recording->push_back([op, arguments, results] {
            torch::jit::Stack again(arguments);
            op.callBoxed(&again);
            for (size_t i = 0; i < results.size(); ++i) {
                write_again(results[i], again[i]);
            }
        });
    }
    for (size_t i = first; i < stack->size(); ++i) {
        (*stack)[i] = call.made((*stack)[i]);
    }
}

Tensor copy_from(const Tensor& source, const Tensor& target, bool) {
    at::AutoDispatchBelowADInplaceOrView guard;
    to_host_count += is_stand_in(source) && !is_stand_in(target);
    to_device_count += !is_stand_in(source) && is_stand_in(target);
    const Tensor to = is_stand_in(target) ? as_cpu(target) : target;
    const Tensor from = is_stand_in(source) ? as_cpu(source) : source;
    if (is_stand_in(source) != is_stand_in(target)) {
        not_while_recording("a copy between host and device");
    } else if (recording != nullptr) {
        keep(to);
        recording->push_back([to, from] { to.copy_(from); });
    }
    to.copy_(from);
    return target;
}

Tensor& set_storage(Tensor& result, at::Storage storage, c10::SymInt offset,
                    c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
    auto* impl = result.unsafeGetTensorImpl();
    impl->set_storage_keep_dtype(std::move(storage));
    impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                                offset.expect_int());
    return result;
}

Tensor& set_whole_storage(Tensor& result, at::Storage storage) {
    const auto count = static_cast<int64_t>(storage.nbytes() / result.dtype().itemsize());
    return set_storage(result, std::move(storage), 0, {c10::SymInt(count)}, {c10::SymInt(1)});
}

at::Scalar local_scalar(const Tensor& t) {
    ++to_host_count;
    not_while_recording("a tensor's value on the host");
    return at::_local_scalar_dense(as_cpu(t));
}

Tensor convolution(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                   c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation,
                   bool transposed, c10::IntArrayRef output_padding, int64_t groups) {
    at::AutoDispatchBelowADInplaceOrView guard;
    Call call(c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution", ""));
    const Tensor x = call.given(input);
    const Tensor w = call.given(weight);
    const auto b = bias ? std::optional<Tensor>(call.given(*bias)) : std::nullopt;
    call.check();
    const auto run = [=, stride = stride.vec(), padding = padding.vec(), dilation = dilation.vec(),
                      output_padding = output_padding.vec()] {
        return at::convolution(x, w, b, stride, padding, dilation, transposed, output_padding,
                               groups);
    };
    const Tensor result = run();
    if (recording != nullptr) {
        recording->push_back([run, result] { write_again(result, run()); });
    }
    return call.made(result);
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& grad, const Tensor& input, const Tensor& weight, c10::IntArrayRef stride,
    c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed,
    c10::IntArrayRef output_padding, int64_t groups, std::array<bool, 3> mask) {
    at::AutoDispatchBelowADInplaceOrView guard;
    Call call(c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution_backward", ""));
    const Tensor g = call.given(grad);
    const Tensor x = call.given(input);
    const Tensor w = call.given(weight);
    call.check();
    const std::vector<int64_t> bias = {grad.size(1)};
    const auto run = [=, stride = stride.vec(), padding = padding.vec(), dilation = dilation.vec(),
                      output_padding = output_padding.vec()] {
        return at::convolution_backward(g, x, w, bias, stride, padding, dilation, transposed,
                                        output_padding, groups, mask);
    };
    const auto [a, b, c] = run();
    if (recording != nullptr) {
        recording->push_back([run, a = a, b = b, c = c] {
            const auto [x, y, z] = run();
            write_again(a, x);
            write_again(b, y);
            write_again(c, z);
        });
    }
    return {call.made(a), call.made(b), call.made(c)};
}

int64_t copies(const std::string& direction) {
    return direction == "host" ? to_host_count.load() : to_device_count.load();
}

void begin_recording() { recording = std::make_unique<Tape>(); }

void abandon_recording() {
    recording.reset();
    put_back();
}

int64_t end_recording() {
    tapes.push_back(std::move(recording));
    put_back();
    return static_cast<int64_t>(tapes.size()) - 1;
}

void replay(int64_t tape) {
    at::AutoDispatchBelowADInplaceOrView guard;
    for (const auto& run : *tapes.at(static_cast<size_t>(tape))) {
        run();
    }
}

Hooks hooks;
const bool registered = (at::RegisterPrivateUse1HooksInterface(&hooks), true);

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
    library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_the_cpu>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
    library.impl("_copy_from", copy_from);
    library.impl("_local_scalar_dense", local_scalar);
    library.impl("set_.source_Storage", set_whole_storage);
    library.impl("set_.source_Storage_storage_offset", set_storage);
    library.impl("convolution_overrideable", convolution);
    library.impl("convolution_backward_overrideable", convolution_backward);
}

TORCH_LIBRARY(standin, library) {
    library.def("copies(str direction) -> int", copies);
    library.def("begin_recording() -> ()", begin_recording);
    library.def("abandon_recording() -> ()", abandon_recording);
    library.def("end_recording() -> int", end_recording);
    library.def("replay(int tape) -> ()", replay);
}
