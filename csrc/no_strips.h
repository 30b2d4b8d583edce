// Strips need permutations across two registers, as AVX2 and AVX-512 have them: elsewhere nothing runs in strips.
#pragma once

#include "rows.h"

namespace dealias::DEALIAS_ISA {

template <class T> bool forward_in_strips(const Job&, const Unit&, Arena&) { return false; }
template <class T> bool backward_in_strips(const Job&, const Unit&, Arena&) { return false; }

}  // namespace dealias::DEALIAS_ISA
