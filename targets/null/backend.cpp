// A back-end without a runtime: its answer is a hash of the input. It tests the frame anywhere.
#include <cstring>

#include "backend.h"
#include "core/errors.h"
#include "core/half.h"

namespace edgevit {
namespace {

// FNV-1a, 64 bits.
std::uint64_t hash_of(ByteView bytes) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (std::size_t i = 0; i < bytes.size; ++i) {
        hash = (hash ^ bytes.data[i]) * 0x100000001b3;
    }
    return hash;
}

// The finaliser of SplitMix64: nearby numbers give unrelated ones.
std::uint64_t mix(std::uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
}

class NullBackend : public Backend {
  public:
    explicit NullBackend(const Manifest& manifest)
        : input_(manifest.input), outputs_(manifest.outputs), answers_(outputs_.size()) {}

    std::vector<TensorSpec> inputs() const override { return {input_}; }
    std::vector<TensorSpec> outputs() const override { return outputs_; }

    void set_input(ByteView bytes) override { input_hash_ = hash_of(bytes); }

    // Of each output another hash, of the first the input's own.
    void invoke() override {
        for (std::size_t k = 0; k < outputs_.size(); ++k) {
            fill(outputs_[k], k == 0 ? input_hash_ : mix(input_hash_ ^ k), answers_[k]);
        }
    }

    void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) override {
        if (size_bytes != answers_.at(index).size()) {
            throw Error("null back-end: get_output() before invoke(), or of another size");
        }
        std::memcpy(out, answers_[index].data(), size_bytes);
    }

    std::string accelerator() const override { return "none"; }

    RuntimeFacts facts() const override {
        RuntimeFacts facts;
        facts.name = "null";
        facts.accelerator_requested = accelerator();
        return facts;
    }

    OpReport profile(ByteView, int) override {
        OpReport report;
        report.reason = "the null back-end runs no graph";
        return report;
    }

  private:
    // Element i is the low byte of mix(hash + i), as a signed step where the output is a float.
    static void fill(const TensorSpec& spec, std::uint64_t hash, Bytes& answer) {
        answer.resize(spec.size_bytes());
        for (std::size_t i = 0; i < spec.elements(); ++i) {
            const auto byte = static_cast<std::uint8_t>(mix(hash + i));
            const auto real = static_cast<float>(static_cast<std::int8_t>(byte));
            if (spec.dtype == DType::float32) {
                std::memcpy(answer.data() + 4 * i, &real, 4);
            } else if (spec.dtype == DType::float16) {
                const std::uint16_t half = float_to_half(real);
                std::memcpy(answer.data() + 2 * i, &half, 2);
            } else {
                answer[i] = byte;
            }
        }
    }

    TensorSpec input_;
    std::vector<TensorSpec> outputs_;
    std::uint64_t input_hash_ = 0;
    std::vector<Bytes> answers_;
};

std::unique_ptr<Backend> open_null(const Manifest& manifest, const BackendOptions&) {
    return std::make_unique<NullBackend>(manifest);
}

[[maybe_unused]] const bool registered = register_backend("null", open_null, {}, Opens::bytes_too);

}  // namespace
}  // namespace edgevit
