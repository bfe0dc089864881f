// Compiled with -mavx512f -mavx512bw. AMX is written in inline assembly, so that a compiler needs
// no support for it beyond its assembler. No processor has confirmed this source: see isa.cpp.
constexpr int kWidth = 16;
constexpr int kAccumulators = 24;
constexpr int kMostColumns = 12;
#include "weight_grad/tile_amx.inl"

namespace maskedconv {
namespace {

struct AmxTiles {
    static void configure(const TileConfig& config) {
        asm volatile("ldtilecfg %0" : : "m"(config));
    }

    template <int kTile> static void load(const void* from, int64_t bytes) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(from), "r"(bytes), "i"(kTile)
                     : "memory");
    }

    template <int kTile> static void store(void* to, int64_t bytes) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(to), "r"(bytes), "i"(kTile)
                     : "memory");
    }

    template <int kSum, int kFirst, int kSecond> static void multiply() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0"
                     :
                     : "i"(kSum), "i"(kFirst), "i"(kSecond));
    }

    static void release() { asm volatile("tilerelease"); }
};

} // namespace

void tile_amx(const TileInput<Bfloat16>& input) { tile_by_tiles<AmxTiles>(input); }

} // namespace maskedconv
