/* main.c - the host program: embeds LuaJIT, runs a script. (bootstrap form) */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include "atomo.h"

int main(int argc, char **argv)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_newtable(L);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - 1);
    }
    lua_setglobal(L, "arg");
    if (luaL_dostring(L, "local exe = io.open('/proc/self/cmdline'):read('*a'):match('^[^%z]+') local d = exe:match('^(.*)/') or '.' "
                         "package.path = d .. '/lua/?.lua;' .. d .. '/lua/?/init.lua;' .. package.path") ||
        luaL_dofile(L, argv[1])) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        return 1;
    }
    lua_close(L);
    return 0;
}
