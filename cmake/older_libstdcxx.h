// Included in front of csrc/parallel.cpp: binds to a function of libstdc++ as GCC 4.4 to 11 have it, so that a library
// built with GCC 12 or later loads beside the libstdc++ of manylinux_2_28 too. The two versions of it do the same.
#include <condition_variable>

#if defined(__GLIBCXX__) && defined(__linux__)
__asm__(".symver _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE,"
        "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");
#endif
