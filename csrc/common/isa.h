// Instruction sets, and the choice of the loops for one.
//
// The inner loops of an operator stand in a file `.inl` in an anonymous namespace, and a source for
// each instruction set includes it: loops_avx2.cpp is compiled for AVX2. Such a source must not
// define anything that the linker could merge with the same of other sources, as inline functions:
// a processor without AVX2 would then run it.
#pragma once

#include <initializer_list>
#include <vector>

namespace maskedconv {

// The narrowest first. avx512_bf16 is avx512 and its instructions for products of bfloat16; amx has
// tiles for these, too, and amx_emulated the same in plain C++, for tests.
enum class Isa { generic, avx2, avx512, avx512_bf16, amx, amx_emulated };

const char* name_of(Isa isa);

// The narrowest first: those that this module has loops for, and those among them that this
// processor can run.
std::vector<Isa> built_isas();
std::vector<Isa> available_isas();

// The one that MASKEDCONV_ISA names, read at the first call; if it is not set or empty, the widest
// available one up to avx512_bf16: no processor has confirmed the loops for amx. Throws
// std::invalid_argument if it names no instruction set, std::runtime_error if the module or the
// processor does not have it, or the system does not permit a process the tiles of amx.
Isa chosen_isa();

// The loops for the chosen instruction set, or for the widest below it. `sets` are an operator's
// loops, the narrowest first; `Loops` has a member `isa`.
template <typename Loops> const Loops& chosen_loops(std::initializer_list<const Loops*> sets) {
    const Isa chosen = chosen_isa();
    const Loops* found = *sets.begin();
    for (const Loops* set : sets)
        if (set->isa <= chosen)
            found = set;
    return *found;
}

} // namespace maskedconv
