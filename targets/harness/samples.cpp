#include "samples.h"

#include "core/errors.h"
#include "core/limits.h"
#include "core/scores.h"

namespace edgevit {
namespace {

std::vector<std::size_t> places_of(const TensorSpec& output, bool maps_last) {
    const std::size_t count = output.elements();
    const bool is_moved = maps_last && output.shape.size() == 4;
    const std::size_t channels = is_moved ? static_cast<std::size_t>(output.shape[3]) : 1;
    const std::size_t pixels = count / channels;
    std::vector<std::size_t> places(kFeatureSamples);
    for (std::size_t i = 0; i < places.size(); ++i) {
        const std::size_t place = i * count / places.size();
        places[i] = is_moved ? place % pixels * channels + place / pixels : place;
    }
    return places;
}

}  // namespace

OutputSamples::OutputSamples(Session& session, bool maps_last) : session_(session) {
    for (const TensorSpec& output : session.manifest().outputs) {
        places_.push_back(places_of(output, maps_last));
    }
    values_.resize(places_.size() * kFeatureSamples);
}

const std::vector<float>& OutputSamples::read() {
    auto next = values_.begin();
    for (std::size_t i = 0; i < places_.size(); ++i) {
        const std::vector<float>& output = session_.output(i);
        if (!are_finite(output.data(), output.size())) {
            throw InputError(session_.manifest().artifact_path().string() + ": its output '" +
                             session_.manifest().outputs[i].name + "' holds NaN or infinity");
        }
        for (const std::size_t place : places_[i]) {
            *next++ = output[place];
        }
    }
    return values_;
}

}  // namespace edgevit
