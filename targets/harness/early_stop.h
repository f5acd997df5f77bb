// Ends a run as soon as the rest of the images can no longer change what the gates say.
#pragma once

#include <cstdint>

namespace edgevit {

// As edgevit.measure.validate.Limits.
struct GateLimits {
    double max_drop_points = 0;        // top-1 below the net that is compared with
    double min_agreement_percent = 0;  // predictions equal to the program's
};

enum class Verdict { open, holds, fails };
const char* verdict_name(Verdict verdict);

// The two gates over `images` images, of which `reference_right` are right by the net that is
// compared with (float, or the program where float is not recorded). The bounds count every image
// that has not run as right and agreeing (can it still hold?) and as neither (is it certain?).
class EarlyStop {
  public:
    EarlyStop(GateLimits limits, std::int64_t images, std::int64_t reference_right)
        : limits_(limits), images_(images), reference_right_(reference_right) {}

    void add(bool is_right, bool agrees);
    Verdict verdict() const;

    const GateLimits& limits() const { return limits_; }
    std::int64_t images() const { return images_; }
    std::int64_t images_run() const { return run_; }

  private:
    bool would_hold(std::int64_t right, std::int64_t same) const;

    GateLimits limits_;
    std::int64_t images_;
    std::int64_t reference_right_;
    std::int64_t run_ = 0;
    std::int64_t right_ = 0;
    std::int64_t same_ = 0;
};

}  // namespace edgevit
