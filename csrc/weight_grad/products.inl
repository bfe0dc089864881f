// Products of floats, a pixel at a time, and the conversion of 16-bit floats to them.
#include "common/halves.inl"
#include "weight_grad/tile.h"

namespace maskedconv {
namespace {

struct FloatProducts {
    using Element = float;
    using Operand = Vector;
    static constexpr int kPixels = 1;

    // kOnce: for several uses; gcc would otherwise read it from memory for each.
    template <bool kOnce>
    static Vector load(std::integral_constant<int, 1>, const float* x, int64_t) {
        Vector v = maskedconv::load(x);
#if defined(__x86_64__)
        if constexpr (kOnce)
            asm("" : "+v"(v));
#endif
        return v;
    }

    static void add(std::integral_constant<int, 1>, Vector& sum, Vector x, const float* grad) {
        sum += x * *grad;
    }
};

template <typename S>
void widen(Pixels<const S> from, Pixels<float> to, int64_t pixels, int64_t channels) {
    for (; pixels > 0; --pixels, from.first += from.pitch, to.first += to.pitch) {
        int64_t channel = 0;
        for (; channel + kWidth <= channels; channel += kWidth)
            store(to.first + channel, load<Vector>(from.first + channel));
        for (; channel < channels; ++channel)
            store(to.first + channel, load<float>(from.first + channel));
    }
}

} // namespace
} // namespace maskedconv
