/* SPDX-License-Identifier: BSD-3-Clause */
/* headers_c.c -- the public headers stand alone in strict C11. */
#include <fptree.h>
#include <pallocator.h>

_Static_assert(sizeof(pa_pptr) == 16 && _Alignof(pa_pptr) == 16, "a persistent pointer never straddles a line");

int main(void)
{
    pa_pptr null = PA_NULL;
    return pa_is_null(null) ? 0 : 1;
}
