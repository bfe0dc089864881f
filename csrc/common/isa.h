// Instruction sets, and which one's loops are called.
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

// The one that MASKEDCONV_ISA names, read at the first call; where it is not set or empty, the
// widest that there is up to avx512_bf16: no processor has confirmed the loops for amx. Throws
// std::invalid_argument where it names no instruction set, std::runtime_error where the module, the
// processor or (of the tiles of amx, which a process has to ask for) the system does not have it.
Isa chosen_isa();

// Of an operator's loops for several instruction sets, the narrowest first: those for the chosen
// one, or for the widest below it. `Loops` has a member `isa`.
template <typename Loops> const Loops& chosen_loops(std::initializer_list<const Loops*> sets) {
    const Isa chosen = chosen_isa();
    const Loops* found = *sets.begin();
    for (const Loops* set : sets)
        if (set->isa <= chosen)
            found = set;
    return *found;
}

} // namespace maskedconv
