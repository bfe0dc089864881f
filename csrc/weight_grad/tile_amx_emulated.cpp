// Compiled as tile_amx.cpp is. The tiles of AMX in plain C++, for the tests on other processors,
// from the operations in Intel's Software Developer's Manual, volume 2, "TDPBF16PS" and
// "LDTILECFG". Conditions that raise an exception there end the process.
constexpr int kWidth = 16;
constexpr int kAccumulators = 24;
constexpr int kMostColumns = 12;
#include "weight_grad/tile_amx.inl"

#include <cmath>
#include <cstdlib>

namespace maskedconv {
namespace {

struct EmulatedTile {
    int rows, row_bytes;
    unsigned char bytes[kSide][4 * kSide];
};

thread_local EmulatedTile tiles[8];

void must(bool allowed) {
    if (!allowed)
        std::abort();
}

// Numbers below the smallest normal one count as zeros, results as operands.
float flushed(float value) {
    return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value;
}

float widened(uint32_t bits) {
    float value;
    bits <<= 16;
    std::memcpy(&value, &bits, sizeof value);
    return flushed(value);
}

// A row of sums: products of even and of odd pixels are added up one by one, then both sums.
void multiply_row(const EmulatedTile& second, const uint32_t* first, float* sums) {
    float even[kSide] = {}, odd[kSide] = {};
    for (int k = 0; k < second.rows; ++k) {
        uint32_t row[kSide];
        std::memcpy(row, second.bytes[k], sizeof row);
        for (int n = 0; n < kSide; ++n) {
            even[n] =
                flushed(std::fma(widened(first[k] & 0xffff), widened(row[n] & 0xffff), even[n]));
            odd[n] = flushed(std::fma(widened(first[k] >> 16), widened(row[n] >> 16), odd[n]));
        }
    }
    for (int n = 0; n < kSide; ++n)
        sums[n] = flushed(flushed(sums[n]) + flushed(even[n] + odd[n]));
}

struct EmulatedTiles {
    static void configure(const TileConfig& config) {
        must(config.palette == 1 && config.start_row == 0);
        for (int i = 0; i < 8; ++i) {
            must(config.rows[i] <= kSide && config.row_bytes[i] <= 4 * kSide);
            must((config.rows[i] == 0) == (config.row_bytes[i] == 0));
            tiles[i] = {config.rows[i], config.row_bytes[i], {}};
        }
    }

    template <int kTile> static void load(const void* from, int64_t bytes) {
        EmulatedTile& tile = configured(kTile);
        for (int row = 0; row < tile.rows; ++row)
            std::memcpy(tile.bytes[row], static_cast<const char*>(from) + row * bytes,
                        static_cast<size_t>(tile.row_bytes));
    }

    template <int kTile> static void store(void* to, int64_t bytes) {
        const EmulatedTile& tile = configured(kTile);
        for (int row = 0; row < tile.rows; ++row)
            std::memcpy(static_cast<char*>(to) + row * bytes, tile.bytes[row],
                        static_cast<size_t>(tile.row_bytes));
    }

    template <int kSum, int kFirst, int kSecond> static void multiply() {
        EmulatedTile& sum = configured(kSum);
        const EmulatedTile &first = configured(kFirst), &second = configured(kSecond);
        must(sum.rows == first.rows && sum.row_bytes == second.row_bytes);
        must(first.row_bytes == 4 * second.rows && sum.row_bytes == 4 * kSide);
        for (int row = 0; row < sum.rows; ++row) {
            uint32_t pairs[kSide];
            float sums[kSide];
            std::memcpy(pairs, first.bytes[row], sizeof pairs);
            std::memcpy(sums, sum.bytes[row], sizeof sums);
            multiply_row(second, pairs, sums);
            std::memcpy(sum.bytes[row], sums, sizeof sums);
        }
    }

    static void release() {
        for (EmulatedTile& tile : tiles)
            tile = {};
    }

  private:
    static EmulatedTile& configured(int index) {
        must(tiles[index].rows > 0);
        return tiles[index];
    }
};

} // namespace

void tile_amx_emulated(const TileInput<Bfloat16>& input) { tile_by_tiles<EmulatedTiles>(input); }

} // namespace maskedconv
