/* paths.c - finds the Lua modules relative to the executable's folder <dir>: in <dir>/lua in a build tree, or in
 * <dir>/../share/lua/5.1 if installed. So the program works from any current folder, and its tree may be moved.
 */
#define _GNU_SOURCE
#include "host/host.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* out [n] = the folder of the executable, without a slash at the end. */
static void executable_folder(const char *argv0, char *out, size_t n)
{
    ssize_t k = readlink("/proc/self/exe", out, n - 1);
    if (k < 0) k = snprintf(out, n, "%s", argv0); /* no /proc: use the name it was called by */
    out[(size_t)k < n ? (size_t)k : n - 1] = 0;
    char *slash = strrchr(out, '/');
    if (slash)
        *slash = 0;
    else
        snprintf(out, n, ".");
}

static void prepend_path(lua_State *L, const char *folder)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "path");
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua;%s", folder, folder, lua_tostring(L, -1));
    lua_setfield(L, -3, "path");
    lua_pop(L, 2);
}

int host_load_modules(lua_State *L, const char *argv0)
{
    static const char *const places[] = {"lua", "../share/lua/5.1"};
    char exe[PATH_MAX], folder[PATH_MAX + 32], file[PATH_MAX + 64], found[PATH_MAX];
    executable_folder(argv0, exe, sizeof exe);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(folder, sizeof folder, "%s/%s", exe, places[i]);
        snprintf(file, sizeof file, "%s/atomo/host/init.lua", folder);
        if (access(file, R_OK) != 0) continue;
        const char *modules = realpath(folder, found) ? found : folder;
        prepend_path(L, modules);
        host_traceback_library(modules);
        int status = luaL_loadfile(L, file);
        return status ? status : host_pcall(L, 0, 1);
    }
    lua_pushfstring(
        L,
        "the Lua modules are missing: neither %s/lua/atomo/host/init.lua nor %s/../share/lua/5.1/atomo/host/init.lua "
        "can be read; build or install again",
        exe, exe);
    return LUA_ERRFILE;
}
