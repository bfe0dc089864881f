// What a tensor map of the Tensor Memory Accelerator (TMA) is made of. Host code, no CUDA.
//
// Rules: CUDA driver API, "cuTensorMapEncodeTiled".
#pragma once

#include <cstdint>
#include <initializer_list>

namespace maskedconv {

// Images of 16-bit elements: channels side by side; the other strides in elements, any for a size
// of 1.
struct Images {
    const void* data;
    int64_t channels, columns, rows, images;
    int64_t column_stride, row_stride, image_stride;
};

// In elements: what one copy brings.
struct Box {
    int64_t channels, columns, rows, images;
};

enum class Swizzle { none, bytes128 };

constexpr int kMapSizes = 4; // channels, columns, rows, images

// What cuTensorMapEncodeTiled is given; `steps` are bytes to the next column, row and image.
struct TensorMapArguments {
    const void* address;
    uint64_t sizes[kMapSizes], steps[kMapSizes - 1];
    uint32_t box[kMapSizes];
    Swizzle swizzle;
};

constexpr int kMapElement = 2;    // bytes of an element
constexpr int kMapAlignment = 16; // bytes of the address and of each step
constexpr int kMostBox = 256;     // elements of a size of the box

// The rule that a map would break, or an empty text.
inline const char* tensor_map_refusal(const Images& from, const Box& box, Swizzle swizzle) {
    constexpr int64_t kMostSize = int64_t{1} << 32, kMostStep = int64_t{1} << 40;
    if (reinterpret_cast<uintptr_t>(from.data) % kMapAlignment != 0)
        return "its memory does not begin at a multiple of 16 bytes";
    for (const int64_t size : {from.channels, from.columns, from.rows, from.images})
        if (size < 1 || size > kMostSize)
            return "a size is not within 1 to 2^32";
    const int64_t counts[] = {from.columns, from.rows, from.images};
    const int64_t strides[] = {from.column_stride, from.row_stride, from.image_stride};
    for (int i = 0; i < kMapSizes - 1; ++i) {
        if (counts[i] == 1)
            continue;
        if (strides[i] < 1 || strides[i] >= kMostStep / kMapElement)
            return "pixels, rows or images lie on each other, or 2^40 bytes apart";
        if (strides[i] * kMapElement % kMapAlignment != 0)
            return "its pixels, rows or images are not a multiple of 16 bytes apart";
    }
    for (const int64_t size : {box.channels, box.columns, box.rows, box.images})
        if (size < 1 || size > kMostBox)
            return "a part of it is not within 1 to 256 elements wide";
    if (box.channels * kMapElement % kMapAlignment != 0)
        return "a pixel's part is not a multiple of 16 bytes";
    if (swizzle == Swizzle::bytes128 && box.channels * kMapElement > 128)
        return "a pixel's part is larger than what is swizzled";
    return "";
}

// Of what is not refused.
inline TensorMapArguments tensor_map_arguments(const Images& from, const Box& box,
                                               Swizzle swizzle) {
    // A size of 1 is never stepped over, but its step must keep to the rules.
    const auto step = [](int64_t size, int64_t stride) {
        return static_cast<uint64_t>(size == 1 ? kMapAlignment : stride * kMapElement);
    };
    const auto count = [](int64_t size) { return static_cast<uint32_t>(size); };
    return {from.data,
            {static_cast<uint64_t>(from.channels), static_cast<uint64_t>(from.columns),
             static_cast<uint64_t>(from.rows), static_cast<uint64_t>(from.images)},
            {step(from.columns, from.column_stride), step(from.rows, from.row_stride),
             step(from.images, from.image_stride)},
            {count(box.channels), count(box.columns), count(box.rows), count(box.images)},
            swizzle};
}

// Bytes that a copy brings, those beyond the images included: they are zeros.
inline int64_t box_bytes(const Box& box) {
    return box.channels * box.columns * box.rows * box.images * kMapElement;
}

} // namespace maskedconv
