// The products of weight_grad by tiles: sums[column][channel] of 16 columns and 16 channels are
// the product of the gradient, [column][pixel], and x, [pixel][channel], both of pairs of pixels.
// Included by a source that sets the constants of tile.inl. Tiles has the operations of AMX:
//   configure(TileConfig), load<t>(from, bytes from row to row), store<t>(to, bytes),
//   multiply<c, a, b>(): c += a b, and release().
#include "weight_grad/tile.inl"

#include "weight_grad/pairs.inl"

namespace maskedconv {
namespace {

constexpr int64_t kSide = 16; // rows of a tile, and 32-bit elements of a row

// Palette 1, as the processor reads it.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

struct alignas(64) PackedTile {
    uint32_t rows[kSide][kSide];
};

// Two pixels of a row, or the last one and nothing.
struct PairOfPixels {
    const Bfloat16* x;
    const float* grad;
    bool single;
};

// A run of pixels, of one row after another: its operands fit the second cache. The more, the less
// often the sums are loaded and stored, and the shorter is the chain of additions.
constexpr int64_t kPackedTiles = 256;
constexpr int64_t kMostInGroup = 64; // vectors of channels, and blocks of columns
constexpr int64_t kMostSteps = 16;   // products of tiles, of kSide pairs each
thread_local PackedTile packed[kPackedTiles];
thread_local PairOfPixels run[kMostSteps * kSide];

// A part of the sums: `vectors` of kSide channels from `channel` on, and columns.
struct Group {
    int64_t channel, vectors, column, columns;

    int64_t blocks() const { return (columns + kSide - 1) / kSide; }
};

// Tiles 0 to 3 are sums of two blocks of columns and two vectors of channels, 4 and 5 the blocks'
// gradient, 6 and 7 the vectors' x.
inline TileConfig config_for(int64_t first_columns, int64_t second_columns) {
    TileConfig config;
    const int64_t rows[8] = {first_columns, first_columns,  second_columns, second_columns,
                             first_columns, second_columns, kSide,          kSide};
    for (int i = 0; i < 8; ++i) {
        config.rows[i] = static_cast<uint8_t>(rows[i]);
        config.row_bytes[i] = rows[i] > 0 ? sizeof(uint32_t) * kSide : 0;
    }
    return config;
}

// Row j is column j of at most kSide pairs; zeros behind them.
inline void pack_gradient(const PairOfPixels* pairs, int64_t count, int64_t column, int64_t columns,
                          PackedTile& to) {
    alignas(64) int32_t places[kSide] = {};
    __mmask16 there = 0, single = 0;
    for (int64_t i = 0; i < count; ++i) {
        places[i] = static_cast<int32_t>(pairs[i].grad - pairs[0].grad);
        there = static_cast<__mmask16>(there | 1u << i);
        single = static_cast<__mmask16>(single | (pairs[i].single ? 1u : 0u) << i);
    }
    const __m512i at = _mm512_load_si512(places);
    const float* from = pairs[0].grad + column;
    for (int64_t j = 0; j < columns; ++j, ++from) {
        const __m512i both =
            _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), there, at, from, sizeof *from);
        // The next pixel is not one of this row.
        const __m512i own = _mm512_mask_and_epi32(both, single, both, _mm512_set1_epi32(0xffff));
        _mm512_store_si512(to.rows[j], own);
    }
}

// Row i is pair i, of kSide channels; zeros behind the last one.
inline void pack_x(const PairOfPixels* pairs, int64_t count, int64_t offset, int64_t pitch,
                   PackedTile& to) {
    for (int64_t i = 0; i < count; ++i) {
        const Bfloat16* x = pairs[i].x + offset;
        _mm512_store_si512(to.rows[i], pairs[i].single ? one_pixel(x) : two_pixels(x, pitch));
    }
    for (int64_t i = count; i < kSide; ++i)
        _mm512_store_si512(to.rows[i], _mm512_setzero_si512());
}

// Adds `steps` products to the sums at `sum`; tiles of a block or vector follow one another.
template <typename Tiles, int kBlocks, int kVectors>
void add_products(const PackedTile* grad, const PackedTile* x, int64_t steps, float* sum,
                  int64_t channels) {
    constexpr int64_t kRowBytes = sizeof(PackedTile) / kSide;
    const int64_t bytes = channels * static_cast<int64_t>(sizeof(float));
    float* const second = sum + kSide * channels;
    Tiles::template load<0>(sum, bytes);
    if constexpr (kVectors > 1)
        Tiles::template load<1>(sum + kSide, bytes);
    if constexpr (kBlocks > 1)
        Tiles::template load<2>(second, bytes);
    if constexpr (kBlocks > 1 && kVectors > 1)
        Tiles::template load<3>(second + kSide, bytes);
    for (int64_t step = 0; step < steps; ++step) {
        Tiles::template load<4>(grad + step, kRowBytes);
        Tiles::template load<6>(x + step, kRowBytes);
        Tiles::template multiply<0, 4, 6>();
        if constexpr (kVectors > 1) {
            Tiles::template load<7>(x + steps + step, kRowBytes);
            Tiles::template multiply<1, 4, 7>();
        }
        if constexpr (kBlocks > 1) {
            Tiles::template load<5>(grad + steps + step, kRowBytes);
            Tiles::template multiply<2, 5, 6>();
        }
        if constexpr (kBlocks > 1 && kVectors > 1)
            Tiles::template multiply<3, 5, 7>();
    }
    Tiles::template store<0>(sum, bytes);
    if constexpr (kVectors > 1)
        Tiles::template store<1>(sum + kSide, bytes);
    if constexpr (kBlocks > 1)
        Tiles::template store<2>(second, bytes);
    if constexpr (kBlocks > 1 && kVectors > 1)
        Tiles::template store<3>(second + kSide, bytes);
}

// All vectors of a group, for kBlocks blocks of columns.
template <typename Tiles, int kBlocks>
void add_vectors(const PackedTile* grad, const PackedTile* x, int64_t steps, float* sum,
                 int64_t channels, int64_t vectors) {
    int64_t vector = 0;
    for (; vector + 2 <= vectors; vector += 2)
        add_products<Tiles, kBlocks, 2>(grad, x + vector * steps, steps, sum + vector * kSide,
                                        channels);
    if (vector < vectors)
        add_products<Tiles, kBlocks, 1>(grad, x + vector * steps, steps, sum + vector * kSide,
                                        channels);
}

// The operands of `count` pairs: blocks of the gradient, then vectors of x.
inline void pack_run(const TileInput<Bfloat16>& t, const Group& group, int64_t count) {
    const int64_t steps = (count + kSide - 1) / kSide;
    for (int64_t step = 0; step < steps; ++step) {
        const PairOfPixels* pairs = run + step * kSide;
        const int64_t some = std::min(kSide, count - step * kSide);
        PackedTile* to = packed + step;
        for (int64_t column = 0; column < group.columns; column += kSide, to += steps)
            pack_gradient(pairs, some, group.column + column,
                          std::min(kSide, group.columns - column), *to);
        for (int64_t vector = 0; vector < group.vectors; ++vector, to += steps)
            pack_x(pairs, some, t.offsets[group.channel / kLane + vector], t.x_pixel, *to);
    }
}

template <typename Tiles>
void add_run(const TileInput<Bfloat16>& t, const Group& group, int64_t count) {
    pack_run(t, group, count);
    const int64_t steps = (count + kSide - 1) / kSide;
    const PackedTile* const x = packed + group.blocks() * steps;
    for (int64_t column = 0; column < group.columns; column += 2 * kSide) {
        const int64_t left = group.columns - column;
        const int64_t second = std::min(kSide, std::max<int64_t>(0, left - kSide));
        Tiles::configure(config_for(std::min(kSide, left), second));
        float* const sum = t.sum + (group.column + column) * t.channels + group.channel;
        const PackedTile* const grad = packed + column / kSide * steps;
        if (second > 0)
            add_vectors<Tiles, 2>(grad, x, steps, sum, t.channels, group.vectors);
        else
            add_vectors<Tiles, 1>(grad, x, steps, sum, t.channels, group.vectors);
    }
}

template <typename Tiles> void add_group(const TileInput<Bfloat16>& t, const Group& group) {
    const int64_t steps = std::min(kMostSteps, kPackedTiles / (group.blocks() + group.vectors));
    int64_t count = 0;
    for (int64_t image = 0; image < t.images; ++image)
        for (int64_t row = 0; row < t.rows; ++row) {
            const Bfloat16* x = t.x + image * t.x_image + row * t.x_row;
            const float* grad = t.grad + image * t.grad_image + row * t.grad_row;
            for (int64_t pixel = 0; pixel < t.pixels; pixel += 2) {
                run[count++] = {x + pixel * t.x_pixel, grad + pixel * t.grad_pixel,
                                pixel + 1 == t.pixels};
                if (count == steps * kSide)
                    add_run<Tiles>(t, group, count), count = 0;
            }
        }
    if (count > 0)
        add_run<Tiles>(t, group, count);
}

template <typename Tiles> void tile_by_tiles(const TileInput<Bfloat16>& input) {
    const auto t = with_longest_rows(input);
    constexpr int64_t kMost = kMostInGroup * kSide;
    for (int64_t channel = 0; channel < t.channels; channel += kMost)
        for (int64_t column = 0; column < t.columns; column += kMost)
            add_group<Tiles>(t, {channel, std::min(kMost, t.channels - channel) / kSide, column,
                                 std::min(kMost, t.columns - column)});
    Tiles::release();
}

} // namespace
} // namespace maskedconv
