// Headers for the host code of all operators. Inner loops that are compiled for an instruction set
// (tile_avx2.cpp and the like) do not include this: see common/isa.h.
#pragma once

#include "common/checks.h"
#include "common/isa.h"
#include "common/threads.h"
#include "common/types.h"
