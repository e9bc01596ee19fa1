/* SPDX-License-Identifier: BSD-3-Clause */
/* headers_cpp.cc -- the public headers stand alone in C++. */
#include <fptree.h>
#include <pallocator.h>

static_assert(sizeof(pa_pptr) == 16 && alignof(pa_pptr) == 16, "a persistent pointer never straddles a line");

int main()
{
    pa_pptr null = PA_NULL;
    return pa_is_null(null) ? 0 : 1;
}
