// The sums of one thread of weight_grad on the CPU. A chain of float additions loses a digit for
// every hundred terms, so that no chain is long: a tile's registers take kRun pixels (or a row's
// end later) and are then added to the floats here, and these go into doubles from time to time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace maskedconv {

class Sums {
  public:
    explicit Sums(int64_t size) : floats_(static_cast<size_t>(size)) {}

    // For tiles to add to.
    float* floats() { return floats_.data(); }

    // To be called when tiles have added so many pixels.
    void count(int64_t pixels) {
        pixels_ += pixels;
        if (pixels_ >= kPixelsInFloats)
            flush();
    }

    // Adds those of another thread.
    void add(const Sums& other) {
        flush();
        for (size_t i = 0; i < doubles_.size(); ++i)
            doubles_[i] += other.value(i);
    }

    float total(int64_t i) const { return static_cast<float>(value(static_cast<size_t>(i))); }

  private:
    // Few enough for the error, and so many that the passes over all sums cost nothing.
    static constexpr int64_t kPixelsInFloats = 8192;

    double value(size_t i) const {
        return doubles_.empty() ? floats_[i] : doubles_[i] + floats_[i];
    }

    void flush() {
        doubles_.resize(floats_.size());
        for (size_t i = 0; i < floats_.size(); ++i)
            doubles_[i] += floats_[i];
        std::fill(floats_.begin(), floats_.end(), 0.0f);
        pixels_ = 0;
    }

    std::vector<float> floats_;
    std::vector<double> doubles_; // empty before the first flush
    int64_t pixels_ = 0;
};

} // namespace maskedconv
