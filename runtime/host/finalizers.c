/* finalizers.c - an error in a script's finalizer (__gc, ffi.gc) is printed, and the program ends with exit code 1.
 * LuaJIT 2.1 of 2022 raises it in whatever code runs at the time, past its pcall or with a fault where that code is
 * compiled, and drops it at the end of the program. */
#include "host/host.h"
#include <stdio.h>

enum { PRINTED_AT_MOST = 10 };
static long failed; /* errors since host_finalizer_forget */

static void report(const char *text)
{
    if (failed++ > PRINTED_AT_MOST) return;
    fflush(stdout);
    if (failed > PRINTED_AT_MOST)
        fputs("atomo-lua: further errors in finalizers are not printed\n", stderr);
    else if (host_is_alone())
        fprintf(stderr, "atomo-lua: error in a finalizer: %s\n", text);
    else
        fprintf(stderr, "atomo-lua: %s: error in a finalizer: %s\n", atomo_mpi_label(), text);
}

static int guarded(lua_State *L) /* upvalue: the finalizer */
{
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    if (host_pcall(L, 1, 0) == 0) return 0;
    const char *text = lua_tostring(L, -1);
    report(text ? text : "an error without text");
    return 0;
}

int host_guard_finalizer(lua_State *L)
{
    lua_settop(L, 1);
    lua_pushcclosure(L, guarded, 1);
    return 1;
}

bool host_finalizer_failed(void)
{
    return failed > 0;
}

void host_finalizer_forget(void)
{
    failed = 0;
}
