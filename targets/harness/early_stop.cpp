#include "early_stop.h"

namespace edgevit {

const char* verdict_name(Verdict verdict) {
    switch (verdict) {
        case Verdict::open:
            return "open";
        case Verdict::holds:
            return "holds";
        case Verdict::fails:
            return "fails";
    }
    return "";
}

void EarlyStop::add(bool is_right, bool agrees) {
    ++run_;
    right_ += is_right ? 1 : 0;
    same_ += agrees ? 1 : 0;
}

// The arithmetic of edgevit.tasks.gate and edgevit.measure.validate, to the last bit: both must say
// the same.
bool EarlyStop::would_hold(std::int64_t right, std::int64_t same) const {
    const auto images = static_cast<double>(images_);
    const double drop = 100.0 * static_cast<double>(reference_right_ - right) / images;
    const double agreement = 100.0 * (static_cast<double>(same) / images);
    return drop <= limits_.max_drop_points && agreement >= limits_.min_agreement_percent;
}

Verdict EarlyStop::verdict() const {
    if (images_ == 0 || would_hold(right_, same_)) {
        return images_ == 0 ? Verdict::open : Verdict::holds;
    }
    const std::int64_t left = images_ - run_;
    return would_hold(right_ + left, same_ + left) ? Verdict::open : Verdict::fails;
}

}  // namespace edgevit
